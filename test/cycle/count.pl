# SPDX-License-Identifier: GPL-2.0-only
# Counts in memory and in a file, one number a line.
use strict;
use warnings;
use IO::Handle;

open(my $f, '>>', $ARGV[0]) or die "$ARGV[0]: $!";
$f->autoflush(1);
my %keep;
for (my $n = 1; ; $n++) {
	$keep{$n % 100} = "$n" x 10;
	die "memory is not what it was" if $n > 50 && $keep{($n - 50) % 100} ne ($n - 50) x 10;
	print $f "$n\n" or die "print: $!";
	select(undef, undef, undef, 0.005);
}
