#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# sqlite3 with a database open: DIRECTORY JOURNAL-MODE. Each answer is the number of rows.
cd "$1" || exit
over=
trap 'over=1' TERM
exec 3> >(trap '' TERM; exec sqlite3 -bail database >out)
database=$!
{
	echo ".output /dev/null"
	echo "PRAGMA journal_mode=$2;"
	echo ".output stdout"
	echo 'CREATE TABLE t (n INTEGER);'
	while [ -z "$over" ]; do
		echo 'INSERT INTO t VALUES (1); SELECT count(*) FROM t;'
		sleep 0.01
	done
} >&3
# It has its end in peace: no journal stays behind.
exec 3>&-
wait "$database"
