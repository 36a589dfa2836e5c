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
#include "proc/text.h"

#define O_LARGEFILE_BIT 0100000 /* the C library has 0 for it where it is always on */

/* A descriptor of a task that is being looked at. */
struct fd_probe {
	struct dump_task *task;
	int fd;
	int info_dir; /* /proc/PID/fdinfo */
	int copy;     /* criu's own descriptor of the same description; -1 where there is none */
	struct stat st;
	uint32_t fs_type; /* of a regular file or directory that there is a copy of; or 0 */
	struct proc_fdinfo info;
	char *lines; /* of fdinfo, each ended by a zero byte */
	size_t lines_size;
	bool is_flag_unknown;	 /* O_CLOEXEC in info.flags; that of the descriptor */
	char name[TEXT_DEC_MAX]; /* the number */
	char link[4200];	 /* of /proc/PID/fd/N */
};

/* The next line of fdinfo that is `name: value`, after line (NULL: from the first). NULL: none. */
const char *probe_next(const struct fd_probe *p, const char *name, const char *line);
/* Reads fdinfo again, for what changes. 0 or -errno. */
int probe_read_info(struct fd_probe *p);
/* The number behind the first such field, in base 8, 10 or 16; or the fallback. */
uint64_t probe_number(const struct fd_probe *p, const char *name, int base, uint64_t fallback);

struct file_class {
	const char *name;
	FdTypes type;
	/* Is it of this kind? The first class of the list that says so has it. */
	bool (*match)(const struct fd_probe *p);
	/* Makes the entry (its id is set already), or adds a blocker. 0 or -errno. */
	int (*dump)(struct dump *d, struct fd_probe *p, FileEntry *e);
	/* True if the entry has the part that belongs to its type, with the same id. */
	bool (*has_part)(const FileEntry *e);
	/* More checks of an entry of an image. 0 or -errno, reported. NULL: none. */
	int (*check)(const struct restore *r, const FileEntry *e);
	/* Opens the description again in criu. Returns a descriptor or -errno, reported. */
	int (*open)(struct restore *r, const FileEntry *e);
	/* True if that can only be done when the processes exist. NULL: never. */
	bool (*is_late)(const struct restore *r, const FileEntry *e);
	/* True if it has to be opened after all others. NULL: never. */
	bool (*is_last)(const FileEntry *e);
	/* Adds to the program of the first task that has it, before descriptors are in place. */
	void (*in_task)(struct restore *r, struct restore_task *t, const FileEntry *e,
			struct program *p);
	/* By what name --inherit-fd knows it. NULL: it cannot be inherited. */
	void (*key)(const struct restore *r, const FileEntry *e, char *buf, size_t size);
	mode_t inherit_kind; /* S_IFMT of what may take its place; 0: any */
	/* Owner and signal of the description. NULL: it has none. */
	const FownEntry *(*fown)(const struct restore *r, const FileEntry *e);
	uint32_t (*flags)(const struct restore *r, const FileEntry *e);
};

/* The functions of a class that only look into its part of an entry, file_entry.member. */
#define FILE_PART(name, member)                                                                    \
	static bool name##_has_part(const FileEntry *e)                                            \
	{                                                                                          \
		return e->member && e->member->id == e->id;                                        \
	}                                                                                          \
	static const FownEntry *name##_fown(const struct restore *r, const FileEntry *e)           \
	{                                                                                          \
		(void)r;                                                                           \
		return e->member->fown;                                                            \
	}                                                                                          \
	static uint32_t name##_flags(const struct restore *r, const FileEntry *e)                  \
	{                                                                                          \
		(void)r;                                                                           \
		return e->member->flags;                                                           \
	}

extern const struct file_class *const file_classes[];
extern const size_t n_file_classes;

const struct file_class *file_class_of(FdTypes type);

/* Options about files that make no sense are refused before anything is done. */
int files_check_options(const struct options *o);

/* Collects the descriptors of a task; descriptions that tasks share are found by kcmp(2). */
int files_collect_task(struct dump *d, struct dump_task *t);

/* Asks a task in the stub what was not to be seen of its descriptors from outside. 0 or -errno. */
int files_ask_task(struct dump_task *t);

/* Collects working directory, root and umask. */
int files_collect_fs(struct dump *d, struct dump_task *t);

/* Resolves what refers to other descriptors. 0 or -errno. */
int files_collect_end(struct dump *d);

/*
 * The id of a file entry for a path that is not a descriptor: a mapped file, an executable, a
 * directory. link is a name in the task's /proc directory ("exe", "map_files/..."). what names
 * it for people. Returns 0 with *ret_id; a file that cannot be opened again adds a blocker.
 */
int files_path_id(struct dump *d, struct dump_task *t, const char *link, int flags,
		  const char *what, uint32_t *ret_id);

/*
 * Saves what is in files and not in memory: queues of pipes, deleted files. The tree is stopped.
 * Makes the links of --link-remap.
 */
int files_save_contents(struct dump *d);

/* Removes these links again: for a dump that fails, or lets the tree go on. */
void files_remove_links(struct dump *d);

/*
 * Collects a descriptor of criu's own, of a file that was found in flight, as if a task had it.
 * It is taken over, and kept until the dump is over. Returns 0 with the id of the file.
 */
int files_add_own(struct dump *d, int fd, uint32_t *ret_id);
/* A copy of a descriptor of criu's, kept until the tree is let go; -1 and errno. */
int files_keep_fd(struct dump *d, int fd);
void files_dump_done(struct dump *d);

/* The inode of a description that was collected. */
ino_t files_inode(const struct dump *d, uint32_t id);

/* copy_fd_of for many descriptors of one process, at dump. */
int files_dump_fd(struct dump *d, pid_t pid, int fd);

/* A new entry of files.img with an id of its own. */
FileEntry *files_new_entry(struct dump *d);

/* Owner and signal of a description (F_SETOWN, F_SETSIG). */
FownEntry *fown_read(struct dump *d, const struct fd_probe *p);
/* Sets them; its processes exist. 0 or -errno, reported. */
int fown_restore_all(struct restore *r);

/* Flags that belong to the description. */
uint32_t probe_flags(const struct fd_probe *p);
/* Sets those of them that can be set. Takes the descriptor over: returns it or -errno. */
int file_finish(int fd, uint32_t flags, const char *what);
/* Moves a new descriptor (or passes an error on) to a number that no task uses. */
int files_own_number(struct restore *r, int fd);
/* Opens what a descriptor of criu refers to once more. Returns a descriptor or -errno. */
int file_reopen(int fd, int flags);

/* Writes files.img, fdinfo-ID.img and fs-PID.img. */
int files_write_images(struct dump *d);

void file_table_free(struct file_table *t);

/* Opens all descriptions of the snapshot in criu, at numbers that no task uses. */
int files_open_all(struct restore *r);

/* Makes directories on the way to a path that are gone; files_clean_up removes them again. */
int files_make_parents(struct restore *r, const char *path);

/* Opens those that need the processes; they exist now. */
int files_open_late(struct restore *r);

/* The tasks have them all: criu, which may stay for long, keeps no end of a pipe open. */
void files_close_all(struct restore *r);
/* Removes what only the restore needed: links and files of deleted files. 0 or -errno, reported. */
int files_clean_up(struct restore *r);
/* Takes events that the restore itself has caused. */
void watches_drain(struct restore *r);
/* The tree runs: temporary links of the dump have no use any more. */
void files_forget_links(struct restore *r);

/* The descriptor in criu of the terminal that controls the session of a leader, or -1. */
int ttys_of_session(const struct restore *r, uint32_t sid);

/* The descriptor in criu of a file id. */
int files_fd(const struct restore *r, uint32_t id);

/* Adds to a (long) program: directories and umask, descriptors into place, the others closed. */
void files_restore_task(struct restore *r, struct restore_task *t, struct program *p);

#endif
