/* SPDX-License-Identifier: GPL-2.0-only */
/* What dump and restore of System V objects both need; inside the namespace. */
#ifndef NS_ATTACH_H
#define NS_ATTACH_H

struct semid_ds;
struct seminfo;

/* The argument of semctl(2), which no header has. */
union semun {
	struct semid_ds *buf;
	unsigned short *array;
	struct seminfo *info;
};

/*
 * Attaches a segment and opens the file behind it, which stays open without counting as an
 * attachment. flags: O_RDONLY or O_RDWR. Returns its descriptor or -errno, reported. *ret_addr:
 * where it is attached then.
 */
int attach_open(int id, int flags, void **ret_addr);

#endif
