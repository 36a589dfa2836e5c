#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Jobs: one in the background, one that is stopped, and pipelines in the foreground, each in a
# process group of its own. Each line of the file is the number after the one before.
set -m
sleep 1000 &
sleep 1000 &
stopped=$!
kill -STOP %2
trap 'kill -CONT %2; kill %1 %2; exit' TERM
n=0
while true; do
	n=$((n + 1))
	echo $n | cat | tail -n 1 >>"$1"
	kill -0 %1 %2 || exit
	# a stop takes effect when the process gets a CPU
	until read -r _ _ state _ <"/proc/$stopped/stat" && [ "$state" = T ]; do
		sleep 0.01
	done
	sleep 0.01
done
