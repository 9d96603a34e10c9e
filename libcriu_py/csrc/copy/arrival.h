/*
 * The usual hand-over of a copy, in C: each function of Python that a copy calls makes it copy pages that it would
 * share, as reference counts are written there.
 */
#ifndef LCP_ARRIVAL_H
#define LCP_ARRIVAL_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */

/* What decides how Python sets up a standard stream. */
struct lcp_stream {
	int is_terminal, is_directory;
	int64_t position; /* -1: it cannot seek */
	int64_t block;
};

/* What Python's module time knows of the time zone: in winter and in summer. */
struct lcp_zone {
	int64_t offsets[2];
	char names[2][32];
};

/* What a copy is going to do, known before the dump. Strings of the environment are NAME=VALUE, and NULL ends them. */
struct lcp_arrival {
	int protocol;            /* of the request */
	int slot;                /* the descriptor that it reads its request from */
	int unwanted;            /* a descriptor to close, or -1 */
	int takes_schedule;      /* whether the request's is for it, even without a process group */
	int prefix;              /* how many words of sys.orig_argv stay */
	int64_t reading;         /* from which Python's clocks go on, or 0 */
	uint64_t id_place;       /* where the interpreter keeps the id of the thread that dumps, or 0 */
	const char *working_set; /* its file's name in the snapshot */
	int (*show)(const char *words, int size); /* the command line, if not NULL */
	const char *shown;       /* its words up to the arguments */
	int shown_size;
	char *const *added;      /* variables that the program has added */
	char *const *changed;    /* pairs: as the program found one, and as it left it; without an equals sign if deleted */
	char *const *watched;    /* variables that decide what is to be done; without an equals sign if absent */
	const char *locale;      /* of LC_CTYPE, for which the streams were set up; NULL: set them up anew */
	struct lcp_stream streams[3];
	struct lcp_zone zone;
	const char *main_file;   /* of the main program, or NULL */
	const char *main_real;   /* the same without symbolic links */
	const char *main_source;
	size_t main_size;
};

/* How far the hand-over has come in C. */
enum lcp_arrived {
	LCP_NOT_ARRIVED,
	LCP_RECEIVED, /* the rest is left to Python */
	LCP_APPLIED,  /* the program goes on where the dump was called */
	LCP_ENDED,    /* the program has ended, by an exception */
};

/* Note what a copy of the dump that follows does, and the Python objects for it (python_arrival.h); NULL: nothing. */
void lcp_expect_arrival(const struct lcp_arrival *arrival, void *objects);
enum lcp_arrived lcp_has_arrived(void);
/* Python's monotonic clock and the wall clock when this copy arrived, in nanoseconds; 0 if it did not. */
void lcp_arrived_at(int64_t *times);
/* The descriptors that came with the request, the request's own first; their number. */
int lcp_received_fds(int *fds, int limit);
/* The request itself, once it is applied. */
const char *lcp_received_block(size_t *size);
/* What the standard stream of a number is. */
void lcp_look_at_stream(int fd, struct lcp_stream *stream);
/* What the time zone is, once tzset(3) was called. */
void lcp_look_at_zone(struct lcp_zone *zone);

/* cdef: end */

#define REQUEST_FIELDS 16 /* before the arguments (libcriu_py/snapshot/request.py) */

/* A request that was received. */
struct lcp_received {
	char *block; /* kept: the environment is in it */
	size_t size;
	char *fields[REQUEST_FIELDS];
	char **argv;
	int argc;
	char **env;      /* as it applies: with the program's changes */
	size_t variables;
	char coerced[24]; /* LC_CTYPE as Python sets it in the C locale, or empty */
};

/* Apply a request, but for what Python keeps; 0, or -1 where that is left to Python. */
int lcp_apply_request(struct lcp_received *received, const struct lcp_arrival *arrival);
int lcp_read_request(struct lcp_received *received, int memory, const struct lcp_arrival *arrival);
/* Whether the watched variables are as they were, and with the locale what streams depend on beside what they are. */
int lcp_same_variables(const struct lcp_arrival *arrival);
int lcp_may_keep_streams(const struct lcp_arrival *arrival);
int lcp_same_zone(const struct lcp_arrival *arrival);
/* Whether the main program is where it was, and as it was. */
int lcp_same_main(const struct lcp_arrival *arrival);

#endif
