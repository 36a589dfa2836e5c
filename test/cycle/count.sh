# SPDX-License-Identifier: GPL-2.0-only
# Counts in a variable and in a file; a process for each nap.
n=0
while :; do
	n=$((n + 1))
	echo $n
	sleep 0.02
done >>"$1"
