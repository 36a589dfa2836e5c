#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A tmux server with two windows, in DIRECTORY; in one of them a program counts.
export TMUX_TMPDIR=$1 SHELL=/bin/sh
here=$(dirname "$0")
tmux -D &
trap 'kill $!; wait; exit' TERM
until tmux -N new-session -d -x 80 -y 24 "sh '$here/count.sh' '$1/out'" 2>/dev/null; do
	sleep 0.1
done
tmux split-window 'sleep 1000'
while kill -0 $!; do
	sleep 0.1
done
