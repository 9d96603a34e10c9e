#define _GNU_SOURCE
#include "become/places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "become/reader.h"
#include "become/why.h"
#include "common/cleanup.h"
#include "common/descriptors.h"

#define MEMORY "memory.img"
#define SECOND 1000000000LL
#define SPARE 16 /* descriptors that this process needs itself */

/* ---- files of memory ------------------------------------------------------------- */

/* Layers of container images keep no more of the time than its second. */
static int is_changed(const struct plan_file *file, const struct stat *status)
{
	int64_t now = status->st_mtim.tv_sec * SECOND + status->st_mtim.tv_nsec;

	return (uint64_t)status->st_size != file->size ||
	       (now != file->mtime_ns && (status->st_mtim.tv_nsec || now != file->mtime_ns - file->mtime_ns % SECOND));
}

static int open_file(const struct places *places, const struct plan_file *file, int directory, struct why *why)
{
	const char *path = plan_at(places->plan, file->path.offset);
	int is_ours = file->flags & PLAN_OF_SNAPSHOT;
	int flags = (file->flags & PLAN_WRITABLE ? O_RDWR : O_RDONLY) | (is_ours ? O_NOFOLLOW : 0);
	AUTO_CLOSE int fd = openat(directory, path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	if (fd < 0 || fstat(fd, &status))
		lcp_why(why, "%s, which the program has mapped, cannot be opened (%s); put it back, or make the snapshot anew "
			"(--replace)", path, strerror(errno));
	else if (is_ours ? (uint64_t)status.st_size != file->size : is_changed(file, &status))
		lcp_why(why, "%s, which the program has mapped, was changed after the dump; make the snapshot anew (--replace)",
			path);
	else
		return lcp_keep_fd(&fd);
	why->is_changed = 1;
	return -1;
}

static int needs_memory(const struct plan_header *plan)
{
	plan_for_each(struct plan_descriptor, row, plan, plan->descriptors)
		if (row->kind == PLAN_MEMFD)
			return 1;
	return plan->reads.count > 0;
}

/* Have room for all numbers; what is open stays so when the limit is lowered again. */
static int raise_limit(struct rlimit *before, rlim_t needed, struct why *why)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, before))
		before->rlim_cur = before->rlim_max = RLIM_INFINITY;
	if (before->rlim_cur >= needed)
		return 0;
	limit = *before;
	limit.rlim_cur = needed;
	if (limit.rlim_max < needed || setrlimit(RLIMIT_NOFILE, &limit))
		return lcp_why(why, "the program needs room for %d open files, and may have %d here; raise that with ulimit -n",
			       (int)needed, (int)limit.rlim_max);
	return 0;
}

int lcp_places_open(struct places *places, const struct plan_header *plan, int directory, struct why *why)
{
	const struct plan_file *files = plan_at(plan, plan->files.offset);

	memset(places, 0, sizeof(*places));
	places->plan = plan;
	places->memory = -1;
	places->above = 3;
	plan_for_each(struct plan_descriptor, row, plan, plan->descriptors)
		places->above = row->fd >= places->above ? row->fd + 1 : places->above;
	places->files = malloc((plan->files.count + 1) * sizeof(*places->files));
	places->kept = calloc(plan->descriptors.count + 1, sizeof(*places->kept));
	places->is_planned = calloc((size_t)places->above, 1);
	if (!places->files || !places->kept || !places->is_planned)
		return lcp_why(why, "no memory is left for its descriptors");
	plan_for_each(struct plan_descriptor, row, plan, plan->descriptors)
		places->is_planned[row->fd] = 1;
	for (uint32_t i = 0; i < plan->files.count; i++)
		places->files[i] = -1;
	if (raise_limit(&places->limit, (rlim_t)places->above + plan->files.count + plan->descriptors.count + SPARE, why))
		return -1;
	if (needs_memory(plan)) {
		places->memory = openat(directory, MEMORY, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
		if (places->memory < 0)
			return lcp_why(why, MEMORY " cannot be opened: %s", strerror(errno));
	}
	for (uint32_t i = 0; i < plan->files.count; i++) {
		if (files[i].flags & PLAN_OF_MEMFD)
			continue; /* which is not made yet */
		places->files[i] = open_file(places, &files[i], directory, why);
		if (places->files[i] < 0)
			return -1;
	}
	return 0;
}

/* ---- descriptors ---------------------------------------------------------------------- */

int lcp_places_yield(const struct places *places, int *fd)
{
	int higher;

	if (*fd < 0 || *fd >= places->above || !places->is_planned[*fd])
		return 0;
	higher = fcntl(*fd, F_DUPFD_CLOEXEC, places->above);
	if (higher < 0)
		return -1;
	close(*fd);
	*fd = higher;
	return 0;
}

static int is_named(char *const *arguments, int fd)
{
	char name[24];
	size_t length = (size_t)snprintf(name, sizeof(name), "/fd/%d", fd);

	for (; arguments && *arguments; arguments++) {
		size_t size = strlen(*arguments);

		if (size >= length && !strcmp(*arguments + size - length, name))
			return 1;
	}
	return 0;
}

/* Keep what this process was started with under a number of the plan; what is its own is out of the way. */
static int make_room(struct places *places, int fd, char *const *arguments, struct why *why)
{
	int flags = fcntl(fd, F_GETFD), kept;

	if (flags < 0)
		return 0;
	if (!(flags & FD_CLOEXEC)) {
		if (places->is_whole || is_named(arguments, fd))
			return lcp_why(why, "%s the inherited descriptor %d, but the program has a file of its own there",
				       places->is_whole ? "a script may use" : "an argument names", fd);
		kept = fcntl(fd, F_DUPFD_CLOEXEC, places->above);
		if (kept < 0)
			return lcp_why(why, "the inherited descriptor %d cannot be kept: %s", fd, strerror(errno));
		places->kept[places->kept_count++] = (struct blob_kept){ fd, kept };
	}
	close(fd);
	return 0;
}

/* Put a descriptor, which is closed on exec, in its place. */
static int settle(int fd, const struct plan_descriptor *row)
{
	if (fd == row->fd)
		return row->close_on_exec ? 0 : fcntl(fd, F_SETFD, 0);
	if (dup3(fd, row->fd, row->close_on_exec ? O_CLOEXEC : 0) < 0)
		return -1;
	return close(fd);
}

static int place(struct places *places, const struct plan_descriptor *row, int slot, struct why *why)
{
	int pair[2] = { -1, -1 }, result = lcp_make_descriptor(places, row, slot, pair, why);

	if (result || (pair[1] >= 0 && lcp_places_yield(places, &pair[1])) || settle(pair[0], row) ||
	    (pair[1] >= 0 && settle(pair[1], row + 1))) {
		if (!result)
			lcp_why(why, "descriptor %d of the program cannot be put in its place: %s", row->fd,
				strerror(errno));
		for (int i = 0; i < 2; i++)
			if (pair[i] >= 0) {
				close(pair[i]); /* in vain, where one was put in its place */
				close(row[i].fd);
			}
		return -1;
	}
	places->made += 1 + (pair[1] >= 0);
	return 0;
}

static int watch(const struct places *places, struct why *why)
{
	plan_for_each(struct plan_watch, watch, places->plan, places->plan->watches) {
		struct epoll_event event = { watch->events, { .u64 = watch->data } };

		if (epoll_ctl(watch->epoll, EPOLL_CTL_ADD, watch->fd, &event))
			return lcp_why(why, "descriptor %d of the program cannot be watched by descriptor %d: %s", watch->fd,
				       watch->epoll, strerror(errno));
	}
	return 0;
}

/* Take a lock, without waiting for it; 0 or -1 with errno. */
static int take(const struct plan_lock *lock)
{
	struct flock range = { .l_type = lock->is_exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET,
			       .l_start = (off_t)lock->start, .l_len = (off_t)lock->length };

	if (lock->kind == PLAN_FLOCK)
		return flock(lock->fd, (lock->is_exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
	return fcntl(lock->fd, lock->kind == PLAN_POSIX ? F_SETLK : F_OFD_SETLK, &range);
}

static int take_locks(const struct places *places, struct why *why)
{
	const struct plan_header *plan = places->plan;

	plan_for_each(struct plan_lock, lock, plan, plan->locks) {
		const char *path = "a file";

		if (!take(lock))
			continue;
		plan_for_each(struct plan_descriptor, row, plan, plan->descriptors)
			if (row->fd == lock->fd)
				path = plan_at(plan, row->data.offset);
		if (errno == EAGAIN || errno == EACCES)
			return lcp_why(why, "another process holds the lock of %s that the program held", path);
		return lcp_why(why, "%s, which the program has locked, cannot be locked: %s", path, strerror(errno));
	}
	return 0;
}

int lcp_places_make(struct places *places, int slot, char *const *arguments, struct why *why)
{
	const struct plan_header *plan = places->plan;
	const struct plan_descriptor *rows = plan_at(plan, plan->descriptors.offset);
	const struct plan_file *files = plan_at(plan, plan->files.offset);

	for (uint32_t i = 0; i < plan->files.count; i++)
		if (lcp_places_yield(places, &places->files[i]))
			return lcp_why(why, "a file cannot be moved: %s", strerror(errno));
	if (lcp_places_yield(places, &places->memory))
		return lcp_why(why, MEMORY " cannot be moved: %s", strerror(errno));
	for (uint32_t i = 0; i < plan->descriptors.count; i++)
		if (make_room(places, rows[i].fd, arguments, why))
			return -1;
	while (places->made < (int)plan->descriptors.count)
		if (place(places, &rows[places->made], slot, why))
			return -1;
	for (uint32_t i = 0; i < plan->files.count; i++)
		if (files[i].flags & PLAN_OF_MEMFD) {
			places->files[i] = fcntl(files[i].descriptor, F_DUPFD_CLOEXEC, places->above);
			if (places->files[i] < 0)
				return lcp_why(why, "a memfd cannot be mapped: %s", strerror(errno));
		}
	return watch(places, why) ? -1 : take_locks(places, why);
}

int lcp_places_hand_over(const struct places *places, int control, char how, struct why *why)
{
	struct { char tag, how; int32_t numbers[MAX_FDS]; } __attribute__((packed)) message = { .tag = 'N', .how = how };
	int fds[MAX_FDS];

	if (places->kept_count > MAX_FDS)
		return lcp_why(why, "the program uses the numbers of %u inherited descriptors", places->kept_count);
	for (uint32_t i = 0; i < places->kept_count; i++) {
		message.numbers[i] = places->kept[i].fd;
		fds[i] = places->kept[i].kept;
	}
	if (lcp_send_message(control, &message, 2 + places->kept_count * sizeof(int32_t), fds, (int)places->kept_count) < 0)
		return lcp_why(why, "inherited descriptors cannot be handed over: %s", strerror(errno));
	return 0;
}

void lcp_places_settle(const struct places *places)
{
	struct rlimit now;

	if (!getrlimit(RLIMIT_NOFILE, &now) && now.rlim_cur != places->limit.rlim_cur)
		setrlimit(RLIMIT_NOFILE, &places->limit);
}

/* Or a conventional start could not have the path either. */
static void unbind(const struct plan_header *plan, const struct plan_descriptor *row)
{
	const struct plan_listener *listener = plan_at(plan, row->data.offset);

	if (row->kind == PLAN_LISTENER && row->value >> 32 == AF_UNIX)
		unlink(((const struct sockaddr_un *)(listener + 1))->sun_path);
}

void lcp_places_undo(struct places *places)
{
	const struct plan_descriptor *rows = plan_at(places->plan, places->plan->descriptors.offset);

	for (uint32_t i = 0; places->files && i < places->plan->files.count; i++)
		if (places->files[i] >= 0)
			close(places->files[i]);
	if (places->memory >= 0)
		close(places->memory);
	for (int i = 0; i < places->made; i++) {
		close(rows[i].fd);
		unbind(places->plan, &rows[i]);
	}
	for (uint32_t i = 0; i < places->kept_count; i++) {
		dup2(places->kept[i].kept, places->kept[i].fd);
		close(places->kept[i].kept);
	}
	lcp_places_settle(places);
	free(places->files);
	free(places->kept);
	free(places->is_planned);
}
