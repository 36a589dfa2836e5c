#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A program that follows a file: FOLLOWER INPUT COMMAND...; numbers are added to the input.
input=$1
shift
: >"$input"
"$@" &
trap 'kill $!; exit' TERM
n=0
while kill -0 $! 2>/dev/null; do
	echo $((++n)) >>"$input"
	sleep 0.02
done
