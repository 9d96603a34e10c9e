/*
 * Whether the files of a snapshot are what they were when it was made. Small ones are read at each start. Large ones are
 * trusted while a note in our own directory on tmpfs says that they have not been touched since they were read, on this
 * boot; libcriu_py/snapshot/sums.py writes such notes too.
 */
#ifndef LIBCRIU_PY_SUMS_H
#define LIBCRIU_PY_SUMS_H

#include <sys/stat.h>

#include "restore/record.h"

struct order;
struct problem;
struct snapshot;

/* What is to be done about large files of which nothing is noted on this boot. */
enum verify {
	VERIFY_UNSET,
	VERIFY_ARRIVAL, /* what brought them has read them */
	VERIFY_ONCE,    /* read them */
	VERIFY_ALWAYS,  /* read them at each start */
	VERIFY_LEVELS
};

#define SUMS_DIFFER 1 /* the content */
#define SUMS_SIZE 2
#define SUMS_UNSAFE 3 /* the problem says why */

struct sums {
	const struct snapshot *snapshot;
	uint32_t touched; /* a sum of what the kernel says of the large files */
	int large;        /* how many there are */
	int images;       /* the directory that most files are in */
};

/* What an order asks for, or the variable; 0, or -1 where that names no level. */
int lcp_verify_level(const struct order *order, int *level, struct problem *problem);

void lcp_sums_begin(struct sums *sums, const struct snapshot *snapshot);
/* Look at a file, and read it if it is small; 0, one of the above, or -errno. */
int lcp_sums_look(struct sums *sums, const struct record_file *file, struct stat *status, struct problem *problem);
/* Whether the large files are to be read before the level lets them pass; what is read is noted by `lcp_sums_note`. */
int lcp_sums_are_due(const struct sums *sums, int level);
/* Read a large file; 0, SUMS_DIFFER or -errno. */
int lcp_sums_read(const struct sums *sums, const struct record_file *file);
/* Note that they are as they should be. */
void lcp_sums_note(const struct sums *sums, int were_read);
void lcp_sums_end(struct sums *sums);

#endif
