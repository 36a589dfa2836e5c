# SPDX-License-Identifier: GPL-2.0-only
# Two threads that hand a number to and fro.
use strict;
use warnings;
use threads;
use Thread::Queue;
use Time::HiRes;

my ($there, $back) = (Thread::Queue->new, Thread::Queue->new);
threads->create(sub {
	while (defined(my $n = $there->dequeue)) {
		$back->enqueue($n + 1);
	}
})->detach;
open(my $out, '>', $ARGV[0]) or die;
select($out);
$| = 1;
for (my $n = 0;;) {
	$there->enqueue($n);
	$n = $back->dequeue;
	print "$n\n";
	Time::HiRes::sleep(0.01);
}
