/*
 * The request that a restored process is handed: the restoring side of
 * libcriu_py/snapshot/request.py, whose `Request` this writes.
 */
#ifndef LCP_REQUEST_H
#define LCP_REQUEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

#define REQUEST_PROTOCOL 3
#define MOST_INHERITED                                                                                                 \
	249 /* what one message takes with the request: MAX_FDS of libcriu_py/linux/sockets.py, less one */

struct text {
	char *data;
	size_t size, room;
	int failed;              /* no memory was left: what is there is not all */
};

static inline void lcp_cleanup_text(const struct text *text)
{
	free(text->data);
}

#define AUTO_TEXT __attribute__((cleanup(lcp_cleanup_text)))

/* Descriptors above 2 that this process was started with. */
struct inherited_fds {
	int fds[MOST_INHERITED];
	int count;               /* of all, also where there is no room for them */
};

struct request {
	const char *executable;  /* what Python names itself; NULL: as at the dump */
	char *const *argv;       /* without the program's name; NULL-terminated */
	char *const *env;
	pid_t pid;               /* of the program; variables that name this process name it */
	const char *cwd;
	mode_t umask;
	const char *snapshot;
	const char *main;        /* the main script by another path than in the snapshot, or NULL */
	unsigned int closed;     /* bit n: descriptor n was closed */
	unsigned int pass;       /* bit n: descriptor n comes with the request */
	const struct inherited_fds *inherited; /* these come with it too; NULL: none */
	int schedule[3];         /* niceness, policy, priority */
	pid_t pgid;              /* 0: none is to be joined */
	int in_place;            /* this process becomes the copy, whose limits are right so */
	uint64_t ignored;        /* bit n: signal n + 1 is ignored */
	uint64_t blocked;        /* the same of those that are blocked */
};

/* Write the request as `Request.encode` does; 0, or -errno. */
int lcp_request_encode(struct text *out, const struct request *request);
/* The descriptor of a memfd with that text, or -errno. */
int lcp_request_file(const struct request *request);
/* The same of a text that is there already. */
int lcp_request_memory(const char *data, size_t size);
/* Add to a text, whose `failed` tells if there is no memory. */
void lcp_request_put(struct text *out, const char *data, size_t size);

#endif
