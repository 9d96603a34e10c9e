/*
 * A snapshot directory, for a restore: what libcriu_py/snapshot/manifest.py and
 * libcriu_py/snapshot/identity.py know of it. Its manifest is for people and Python.
 */
#ifndef LIBCRIU_PY_MANIFEST_H
#define LIBCRIU_PY_MANIFEST_H

#include "restore/record.h"

struct problem;

struct snapshot {
	char *path;                         /* without symbolic links; NULL where there is none */
	int directory;                      /* O_PATH */
	const struct record_header *record; /* mapped; NULL where nobody that we trust has written one */
	size_t size;
	const struct record_facts *facts;   /* NULL: it cannot be used */
};

/*
 * Open a snapshot and check whom it belongs to, its format, and that its record
 * is whole. Returns 0 or -1; then too `snapshot_close` is due, and
 * `lcp_snapshot_command` may know the command.
 */
int lcp_snapshot_open(struct snapshot *snapshot, const char *directory, struct problem *problem);

/* Whether copies run the main program of a snapshot, as it is, from its beginning; else it checkpointed itself. */
int lcp_snapshot_is_of_main(const struct snapshot *snapshot);

/* The words of the conventional command, NULL-terminated and to be freed; NULL where nobody that we trust has recorded it. */
char **lcp_snapshot_command(const struct snapshot *snapshot);

/*
 * Refuse a snapshot whose restore would fail or not be sound on this machine, `with_variables`: for a program with the
 * environment of this process.
 */
int lcp_snapshot_check(const struct snapshot *snapshot, int with_variables, struct problem *problem);

/* Open a file from which memory is mapped; the descriptor or -1. */
int lcp_snapshot_open_memory(const struct snapshot *snapshot, const struct record_memory *part, struct problem *problem);

static inline const char *snapshot_text(const struct snapshot *snapshot, struct record_text text)
{
	return record_text(snapshot->record, text);
}

#endif
