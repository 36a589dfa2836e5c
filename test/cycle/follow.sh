#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A program that follows a file: FOLLOWER INPUT COMMAND...; numbers are added to the input.
input=$1
shift
: >"$input"
"$@" &
trap 'kill $!; exit' TERM
# Redirected once: the descriptors of this shell do not change from one moment to the next.
exec >>"$input" 2>/dev/null
n=0
while kill -0 $!; do
	echo $((++n))
	sleep 0.02
done
