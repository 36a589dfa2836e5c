#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# sqlite3 with a database open: DIRECTORY JOURNAL-MODE. Each answer is the number of rows.
cd "$1" || exit
{
	echo ".output /dev/null"
	echo "PRAGMA journal_mode=$2;"
	echo ".output stdout"
	echo 'CREATE TABLE t (n INTEGER);'
	while true; do
		echo 'INSERT INTO t VALUES (1); SELECT count(*) FROM t;'
		sleep 0.01
	done
} | sqlite3 -bail database >out &
trap 'trap - TERM; kill 0' TERM
wait
