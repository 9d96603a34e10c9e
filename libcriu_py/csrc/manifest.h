/*
 * A snapshot directory and its manifest: what libcriu_py/snapshot/manifest.py and
 * libcriu_py/snapshot/identity.py know of them, for a restore.
 */
#ifndef LIBCRIU_PY_MANIFEST_H
#define LIBCRIU_PY_MANIFEST_H

#include "json.h"
#include "problem.h"

#define MANIFEST_FORMAT 2

struct snapshot {
	char *path;                   /* without symbolic links; NULL where there is none */
	int directory;                /* O_PATH */
	char *text;
	struct json_document document;
	const struct json *manifest;  /* NULL: it cannot be used */
};

/*
 * Open a snapshot and check whom it belongs to, its format, and that all that
 * a restore reads is there. Returns 0 or -1; then too `snapshot_close` is due,
 * and `snapshot_command` may know the command.
 */
int snapshot_open(struct snapshot *snapshot, const char *directory, struct problem *problem);
void snapshot_close(struct snapshot *snapshot);

/* Whether copies run the main program of a snapshot, as it is, from its beginning; else it checkpointed itself. */
int snapshot_is_of_main(const struct snapshot *snapshot);

/* The conventional command as an array of strings, or NULL where nobody that we trust has recorded it. */
const struct json *snapshot_command(const struct snapshot *snapshot);

/*
 * Refuse a snapshot whose restore would fail or not be sound on this machine, `with_variables`: for a program with the
 * environment of this process.
 */
int snapshot_check(const struct snapshot *snapshot, int with_variables, struct problem *problem);

/* The name that memory.img has in the images, or NULL where all memory is copied. */
const char *snapshot_memory_key(const struct snapshot *snapshot);
/* How many files there may be from which memory is mapped: memory.img, and those of a store. */
#define MEMORY_FILES 49
/* The next of these after `part`, the first after NULL; NULL after the last. */
const struct json *snapshot_memory_file(const struct snapshot *snapshot, const struct json *part);
/* Open such a file; the descriptor or -1. */
int snapshot_open_memory(const struct snapshot *snapshot, const struct json *part, struct problem *problem);

/* Whether an array has strings only. */
int all_strings(const struct json *array);

#endif
