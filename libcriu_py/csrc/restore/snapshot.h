/*
 * A snapshot directory and its launch record, for a restore. The manifest is for people and Python.
 */
#ifndef LCP_SNAPSHOT_H
#define LCP_SNAPSHOT_H

#include <sys/types.h>
#include "restore/record.h"

struct order;
struct problem;

struct snapshot {
	char *path;                         /* without symbolic links; NULL: none */
	int directory;                      /* locked: nobody removes what is in it while it is restored */
	const struct record_header *record; /* mapped; NULL: none that we trust */
	size_t size;
	const struct record_facts *facts;   /* NULL: unusable */
};

/*
 * Open a snapshot and check its owner, its format and the checksum of its record. Returns 0 or -1; even then
 * `lcp_snapshot_command` may know the command.
 */
int lcp_snapshot_open(struct snapshot *snapshot, const char *directory, struct problem *problem);

/* Whether copies run the main program from its beginning; otherwise it took its own checkpoint. */
int lcp_snapshot_is_of_main(const struct snapshot *snapshot);

/* Return the conventional command, NULL-terminated, to be freed; NULL if there is none that we trust. */
char **lcp_snapshot_command(const struct snapshot *snapshot);

/*
 * Refuse a snapshot whose restore would fail or be unsound on this machine, or with the environment that the copy is to
 * have: that of the order, or of this process if there is none.
 */
int lcp_snapshot_check(const struct snapshot *snapshot, const struct order *order, struct problem *problem);

/* The same, but for the files that the program had mapped: who maps them compares them. */
int lcp_snapshot_check_unmapped(const struct snapshot *snapshot, struct problem *problem);

/* Whether a variable that interpreters read at their start is not as it was. */
int lcp_variables_differ(const struct snapshot *snapshot);

/* Whether a module of the snapshot could be imported from a directory that it was not imported from. */
int lcp_finds_modules(const struct snapshot *snapshot, const char *directory);

/* Print what `lcp_snapshot_check` finds, all of it and each with a NUL at its end; the exit status. */
int lcp_snapshot_list_mismatches(const struct snapshot *snapshot);

/* The pid of the program, in the images. */
pid_t lcp_snapshot_pid(const struct snapshot *snapshot);

/* Open a file from which memory is mapped; the descriptor or -1. */
int lcp_snapshot_open_memory(const struct snapshot *snapshot, const struct record_memory *part,
			     struct problem *problem);

static inline const char *snapshot_text(const struct snapshot *snapshot, struct record_text text)
{
	return record_text(snapshot->record, text);
}

#endif
