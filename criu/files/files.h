/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Open file descriptions and what else refers to files: descriptors, mapped files, executables,
 * working and root directories. Each kind of description is one class (files/classes.c).
 */
#ifndef FILES_FILES_H
#define FILES_FILES_H

#include <sys/stat.h>

#include "model/dump.h"
#include "model/restore.h"

/* A descriptor of a task that is being looked at. */
struct fd_probe {
	struct dump_task *task;
	int fd;
	struct stat st;
	struct proc_fdinfo info;
	char link[4200]; /* of /proc/PID/fd/N */
};

struct file_class {
	const char *name;
	FdTypes type;
	/* Is it of this kind? The first class of the list that says so has it. */
	bool (*match)(const struct fd_probe *p);
	/* Makes the entry (its id is set already), or adds a blocker. 0 or -errno. */
	int (*dump)(struct dump *d, const struct fd_probe *p, FileEntry *e);
	/* Checks an entry of an image. 0 or -errno, reported. */
	int (*check)(const FileEntry *e);
	/* Opens the description again in criu. Returns a descriptor or -errno, reported. */
	int (*open)(struct restore *r, const FileEntry *e);
};

extern const struct file_class *const file_classes[];
extern const size_t n_file_classes;

const struct file_class *file_class_of(FdTypes type);

/* Collects the descriptors of a task; descriptions that tasks share are found by kcmp(2). */
int files_collect_task(struct dump *d, struct dump_task *t);

/* Collects working directory, root and umask. */
int files_collect_fs(struct dump *d, struct dump_task *t);

/*
 * The id of a file entry for a path that is not a descriptor: a mapped file, an executable, a
 * directory. link is a name in the task's /proc directory ("exe", "map_files/..."). what names
 * it for people. Returns 0 with *ret_id; a file that cannot be opened again adds a blocker.
 */
int files_path_id(struct dump *d, struct dump_task *t, const char *link, int flags,
		  const char *what, uint32_t *ret_id);

/* Writes files.img, fdinfo-ID.img and fs-PID.img. */
int files_write_images(struct dump *d);

void file_table_free(struct file_table *t);

/* Opens all descriptions of the snapshot in criu, at numbers that no task uses. */
int files_open_all(struct restore *r);

/* The descriptor in criu of a file id. */
int files_fd(const struct restore *r, uint32_t id);

/* Adds to a (long) program: directories and umask, descriptors into place, the others closed. */
void files_restore_task(struct restore *r, struct restore_task *t, struct program *p);

#endif
