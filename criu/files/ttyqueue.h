/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bytes that wait in a pseudo terminal for somebody to read them. No call looks at them without
 * taking them away; TIOCSTI, ioctl_tty(2), puts them back into the end that they were in.
 */
#ifndef FILES_TTYQUEUE_H
#define FILES_TTYQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"

struct tty_queue {
	const uint8_t *data;
	size_t n;
	const uint32_t *eof_at; /* ascending: behind so many bytes somebody typed end-of-file */
	size_t n_eof;
};

/*
 * Copies what waits at both ends of a pair while nobody uses it. A process of its own does it, so
 * that the bytes are back whatever becomes of criu. Returns 0, with nothing in the queues if they
 * cannot be copied here, which is said as a warning about who; -errno if it failed, reported.
 */
int tty_queues_copy(struct arena *a, int master, const char *who, struct tty_queue *ret_of_master,
		    struct tty_queue *ret_of_slave);

/*
 * Puts bytes into an end, as if they had just come in; peer is the other end. A slave has its
 * settings by then, and has them again afterwards. 0 or -errno.
 */
int tty_queue_put(int end, int peer, bool is_slave, const struct tty_queue *q);

#endif
