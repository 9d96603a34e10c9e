/* Which descriptors a plan may hold. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "become/reader.h"
#include "common/cleanup.h"

/* Flags that open(2) takes without a change to what it opens. */
#define OPEN_FLAGS                                                                                                  \
	(O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECTORY | O_DIRECT | O_NOATIME | O_SYNC | O_DSYNC | O_PATH | O_NOFOLLOW | \
	 0100000 /* O_LARGEFILE */)
#define SEALS 0x3fu /* F_SEAL_SEAL to F_SEAL_EXEC */
#define SOCKET_FLAGS (O_RDWR | O_NONBLOCK)

/* By kind: 0 is refused. */
static const struct kind {
	uint32_t flags;
	unsigned int is_known : 1, is_pair : 1, has_data : 1, may_have_data : 1, is_path : 1;
} kinds[] = {
	[PLAN_REQUEST] = { SOCKET_FLAGS, .is_known = 1 },
	[PLAN_OPEN] = { OPEN_FLAGS, .is_known = 1, .has_data = 1, .is_path = 1 },
	[PLAN_DUPLICATE] = { ~0u, .is_known = 1 },
	[PLAN_SOCKET_PAIR] = { SOCKET_FLAGS, .is_known = 1, .is_pair = 1, .may_have_data = 1 },
	[PLAN_PIPE] = { O_ACCMODE | O_NONBLOCK | O_DIRECT, .is_known = 1, .is_pair = 1, .may_have_data = 1 },
	[PLAN_EPOLL] = { O_RDWR, .is_known = 1 },
	[PLAN_EVENTFD] = { O_RDWR | O_NONBLOCK | 1, .is_known = 1 },
	[PLAN_TIMERFD] = { O_RDWR | O_NONBLOCK, .is_known = 1, .has_data = 1 },
	[PLAN_SIGNALFD] = { O_RDWR | O_NONBLOCK, .is_known = 1 },
	[PLAN_MEMFD] = { O_ACCMODE | O_NONBLOCK | O_APPEND, .is_known = 1, .has_data = 1 },
	[PLAN_LISTENER] = { SOCKET_FLAGS, .is_known = 1, .has_data = 1 },
	[PLAN_OTHER_END] = { O_ACCMODE | O_NONBLOCK | O_DIRECT, .is_known = 1, .may_have_data = 1 },
};

/* Which numbers are in the list so far. */
struct seen {
	unsigned char *kind;
	int size;
};

static void cleanup_seen(const struct seen *seen)
{
	free(seen->kind);
}

static int kind_of(const struct seen *seen, int32_t fd)
{
	return fd >= 0 && fd < seen->size ? seen->kind[fd] : 0;
}

static const char *data_fault(const struct plan_header *plan, const struct plan_descriptor *row)
{
	const struct kind *kind = &kinds[row->kind];

	if (!row->data.offset && !row->data.length)
		return kind->has_data ? "a descriptor lacks what it is of" : NULL;
	if (!kind->has_data && !kind->may_have_data)
		return "a descriptor has data that it cannot have";
	if (!lcp_plan_has(plan, row->data, kind->is_path))
		return "what a descriptor is of is not in it";
	return NULL;
}

static const char *memory_fault(const struct plan_header *plan, const struct plan_descriptor *row)
{
	const struct plan_memory *memory = plan_at(plan, row->data.offset);

	if (row->data.length < sizeof(*memory) || row->data.offset % 8 ||
	    memchr(memory + 1, '\0', row->data.length - sizeof(*memory)))
		return "a memfd is without a name";
	if (memory->size > LLONG_MAX / 2 || memory->offset > LLONG_MAX / 2)
		return "a memfd is too large";
	return memory->mode & ~07777u || memory->seals & ~SEALS ? "a memfd is of an unknown kind" : NULL;
}

static const char *listener_fault(const struct plan_header *plan, const struct plan_descriptor *row)
{
	const struct sockaddr_un *address = plan_at(plan, row->data.offset + sizeof(struct plan_listener));
	uint32_t size = row->data.length - (uint32_t)sizeof(struct plan_listener);

	if (row->data.length <= sizeof(struct plan_listener) || row->data.offset % 8 || size > sizeof(struct sockaddr_storage))
		return "a listening socket is without an address";
	if (row->value >> 32 == AF_UNIX && (size <= offsetof(struct sockaddr_un, sun_path) || size > sizeof(*address) ||
					    (address->sun_path[0] && address->sun_path[0] != '/')))
		return "a listening socket is where none can be";
	return row->other_offset > 07777 ? "a listening socket has unknown permissions" : NULL;
}

static const char *value_fault(const struct plan_header *plan, const struct plan_descriptor *row)
{
	uint64_t value = row->value;

	switch (row->kind) {
	case PLAN_OPEN:
		return value > LLONG_MAX || *(const char *)plan_at(plan, row->data.offset) != '/' ?
			       "an open file is where none can be" : NULL;
	case PLAN_SOCKET_PAIR:
		return value != SOCK_STREAM && value != SOCK_DGRAM && value != SOCK_SEQPACKET ?
			       "a pair of sockets is of an unknown kind" : NULL;
	case PLAN_PIPE:
		return !value || value > INT_MAX ? "a pipe has an unknown capacity" : NULL;
	case PLAN_EVENTFD:
		return value == UINT64_MAX ? "an eventfd has an unknown count" : NULL;
	case PLAN_TIMERFD:
		return value > CLOCK_BOOTTIME_ALARM || row->data.length != sizeof(struct plan_timer) ||
				       row->data.offset % 8 ? "a timerfd is of an unknown kind" : NULL;
	case PLAN_MEMFD:
		return value > LLONG_MAX ? "a memfd is read where it cannot be" : memory_fault(plan, row);
	case PLAN_LISTENER:
		return listener_fault(plan, row);
	default:
		return NULL;
	}
}

/* `before` is the row before this one, of a pair whose other end it may be. */
static const char *row_fault(const struct plan_header *plan, const struct plan_descriptor *row,
			     const struct plan_descriptor *before, const struct seen *seen)
{
	int is_other = before && kinds[before->kind].is_pair;

	if (row->fd < 3 || row->fd >= seen->size || kind_of(seen, row->fd))
		return "a descriptor has a number that none can have";
	if (row->kind >= sizeof(kinds) / sizeof(*kinds) || !kinds[row->kind].is_known)
		return "a descriptor is of an unknown kind";
	if (row->flags & ~kinds[row->kind].flags || row->close_on_exec > 1 ||
	    (row->form && (row->kind != PLAN_OPEN || row->form & ~(uint32_t)S_IFMT)))
		return "a descriptor has unknown flags";
	if ((row->kind == PLAN_OTHER_END) != is_other || (is_other && row->fd != before->other))
		return "a pair has one end";
	if (row->kind == PLAN_DUPLICATE && (row->other < 0 || (row->other > 2 && !kind_of(seen, row->other))))
		return "a duplicate is of a descriptor that is not in it";
	if (row->kind == PLAN_MEMFD && row->other >= 0 && kind_of(seen, row->other) != PLAN_MEMFD)
		return "a memfd is that of a descriptor that is not in it";
	return data_fault(plan, row);
}

static const char *rows_fault(const struct plan_header *plan, const struct seen *seen)
{
	const struct plan_descriptor *before = NULL;
	const char *fault;
	int requests = 0;

	plan_for_each(struct plan_descriptor, row, plan, plan->descriptors) {
		fault = row_fault(plan, row, before, seen);
		if (!fault)
			fault = value_fault(plan, row);
		if (fault)
			return fault;
		seen->kind[row->fd] = (unsigned char)row->kind;
		requests += row->kind == PLAN_REQUEST;
		before = row;
	}
	if (before && kinds[before->kind].is_pair)
		return "a pair has one end";
	return requests > 1 ? "there is more than one request" : NULL;
}

static const char *watches_fault(const struct plan_header *plan, const struct seen *seen)
{
	plan_for_each(struct plan_watch, watch, plan, plan->watches)
		if (kind_of(seen, watch->epoll) != PLAN_EPOLL || watch->unused || watch->fd < 0 ||
		    (watch->fd > 2 && !kind_of(seen, watch->fd)))
			return "a descriptor is watched that is not in it";
	return NULL;
}

static const char *memory_files_fault(const struct plan_header *plan, const struct seen *seen)
{
	plan_for_each(struct plan_file, file, plan, plan->files)
		if (file->flags & PLAN_OF_MEMFD && kind_of(seen, file->descriptor) != PLAN_MEMFD)
			return "a file is of a memfd that is not in it";
	return NULL;
}

static const char *locks_fault(const struct plan_header *plan, const struct seen *seen)
{
	plan_for_each(struct plan_lock, lock, plan, plan->locks)
		if (kind_of(seen, lock->fd) != PLAN_OPEN || lock->kind < PLAN_FLOCK || lock->kind > PLAN_OFD ||
		    lock->is_exclusive > 1 || lock->unused || lock->start > LLONG_MAX ||
		    lock->length > LLONG_MAX - lock->start || (lock->kind == PLAN_FLOCK && (lock->start || lock->length)))
			return "a lock is of an unknown kind";
	return NULL;
}

const char *lcp_plan_descriptors_fault(const struct plan_header *plan)
{
	__attribute__((cleanup(cleanup_seen))) struct seen seen = { NULL, 3 };
	const char *fault;

	plan_for_each(struct plan_descriptor, row, plan, plan->descriptors)
		if (row->fd >= seen.size && row->fd < HIGHEST_DESCRIPTOR)
			seen.size = row->fd + 1;
	seen.kind = calloc((size_t)seen.size, 1);
	if (!seen.kind)
		return "no memory is left to check it";
	fault = rows_fault(plan, &seen);
	if (!fault)
		fault = memory_files_fault(plan, &seen);
	if (!fault)
		fault = watches_fault(plan, &seen);
	return fault ? fault : locks_fault(plan, &seen);
}
