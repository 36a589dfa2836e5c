# SPDX-License-Identifier: GPL-2.0-only
# Two processes a round, one of which writes to the file.
while :; do
	date +%N
	sleep 0.05
done >>"$1"
