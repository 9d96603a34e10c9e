#define _GNU_SOURCE
#include "restore/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "restore/problem.h"
#include "restore/record.h"
#include "restore/tree.h"

#define MANIFEST "manifest.json"
#define LAUNCH "launch"
#define LARGEST_RECORD (64 << 20)

/* ---- opening ---------------------------------------------------------- */

/* Whether a name is that of a program on PATH. */
static int is_command(const char *name)
{
	AUTO_FREE char *path = strdup(getenv("PATH") ?: "");
	char file[PATH_MAX];

	for (char *rest = path, *place; !strchr(name, '/') && (place = strsep(&rest, ":"));)
		if (snprintf(file, sizeof(file), "%s/%s", place, name) < PATH_MAX && !access(file, X_OK))
			return 1;
	return 0;
}

/* What stands where a snapshot should: a program, perhaps, or nothing. */
static int no_snapshot(const char *path, struct problem *problem)
{
	struct stat status;
	int is_there = !stat(path, &status);

	if (is_there && S_ISREG(status.st_mode))
		return lcp_unusable(problem, "%s is no snapshot: it is a file; if it is a program, make its snapshot "
				    "with: libcriu-py snapshot %s", path, path);
	if (!is_there && is_command(path))
		return lcp_unusable(problem, "%s is no snapshot: it is a command; if it is written in Python, make its "
				    "snapshot with: libcriu-py snapshot %s", path, path);
	return lcp_unusable(problem, "%s is no snapshot: %s; make one with: libcriu-py snapshot -o %s ...", path,
			    is_there ? "it has no " MANIFEST : "there is no such directory", path);
}

static int cannot_open(const char *directory, struct problem *problem)
{
	int error = errno;

	if (error == ENOENT || error == ENOTDIR)
		return no_snapshot(directory, problem);
	return lcp_unusable(problem, "%s cannot be read by this user: %s; a snapshot belongs to who made it",
			       directory, strerror(error));
}

static int no_record(const struct snapshot *snapshot, const char *directory, struct problem *problem)
{
	if (!faccessat(snapshot->directory, MANIFEST, F_OK, 0))
		return lcp_unusable(problem,
				    "%s is of a format that older versions of libcriu_py had; make the snapshot anew",
				    directory);
	errno = ENOENT;
	return cannot_open(directory, problem);
}

/* Map the record, of `status`, and check it; 0 or -1. */
static int map_record(struct snapshot *snapshot, int fd, const struct stat *status, struct problem *problem)
{
	const void *record = MAP_FAILED;

	/* Populated: the checksum reads all of it at once. */
	if (S_ISREG(status->st_mode) && status->st_size > 0 && status->st_size <= LARGEST_RECORD)
		record = mmap(NULL, (size_t)status->st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (record == MAP_FAILED)
		return lcp_unusable(problem,
				    "%s/" LAUNCH " is not a launch record of libcriu_py; make the snapshot anew",
				    snapshot->path);
	snapshot->record = record;
	snapshot->size = (size_t)status->st_size;
	/* A supervisor would keep the file system busy a moment longer than the launcher does. */
	madvise((void *)record, snapshot->size, MADV_DONTFORK);
	lcp_unusable(problem, "%s/" LAUNCH " ", snapshot->path);
	snapshot->facts = lcp_record_facts(record, snapshot->size, problem);
	return snapshot->facts ? 0 : -1;
}

/* Open the record of an open snapshot, and check it; 0 or -1. */
static int open_record(struct snapshot *snapshot, const char *directory, struct problem *problem)
{
	/* A FIFO in its place must not make us wait. */
	AUTO_CLOSE int fd = openat(snapshot->directory, LAUNCH, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct stat status;

	if (fd < 0)
		return errno == ENOENT ? no_record(snapshot, directory, problem) : cannot_open(directory, problem);
	return lcp_tree_refuse(fd, snapshot->path, "/" LAUNCH, &status, problem) ||
			       map_record(snapshot, fd, &status, problem) ? -1 : 0;
}

int lcp_snapshot_open(struct snapshot *snapshot, const char *directory, struct problem *problem)
{
	AUTO_CLOSE int fd = -1;
	struct stat status;
	int result;

	memset(snapshot, 0, sizeof(*snapshot));
	snapshot->directory = -1;
	snapshot->path = realpath(directory, NULL);
	if (!snapshot->path)
		return cannot_open(directory, problem);
	for (;;) {
		snapshot->directory = lcp_tree_open(snapshot->path, problem);
		if (snapshot->directory < -1)
			errno = -snapshot->directory - 1;
		if (snapshot->directory < 0)
			return snapshot->directory == -1 ? -1 : cannot_open(directory, problem);
		if (lcp_tree_refuse(snapshot->directory, snapshot->path, "", &status, problem))
			return -1;
		result = open_record(snapshot, directory, problem);
		/* Another may have taken its place, and it may have been removed, between the two. */
		if (!result || snapshot->record || lcp_tree_is_at(snapshot->directory, snapshot->path))
			return result;
		close(snapshot->directory);
	}
}

char **lcp_snapshot_command(const struct snapshot *snapshot)
{
	const struct record_header *record = snapshot->record;
	const char *word;
	char **command;

	if (!record || !lcp_record_has_command(record, snapshot->size))
		return NULL;
	command = calloc(record->command_count + 1, sizeof(*command));
	word = record->command;
	for (uint32_t i = 0; command && i < record->command_count; i++, word += strlen(word) + 1)
		command[i] = (char *)word;
	return command;
}

int lcp_snapshot_is_of_main(const struct snapshot *snapshot)
{
	return snapshot->record && lcp_record_has_command(snapshot->record, snapshot->size) &&
	       snapshot->record->program;
}

pid_t lcp_snapshot_pid(const struct snapshot *snapshot)
{
	record_for_each(uint32_t, pid, snapshot->record, snapshot->facts->pids)
		return (pid_t)*pid;
	return 0;
}

int lcp_snapshot_open_memory(const struct snapshot *snapshot, const struct record_memory *part, struct problem *problem)
{
	const char *name = snapshot_text(snapshot, part->file);
	AUTO_CLOSE int fd = openat(snapshot->directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct stat status;

	if (fd < 0)
		return lcp_unusable(problem,
				    "%s/%s, the memory of the snapshot, cannot be opened: %s; make the snapshot anew",
				    snapshot->path, name, strerror(errno));
	/* criu would not notice (criu/files-reg.c, open_path). */
	if (fstat(fd, &status) || !S_ISREG(status.st_mode) || (uint64_t)status.st_size != part->size)
		return lcp_unusable(problem, "%s/%s has not the %" PRIu64 " bytes that the snapshot was made with; "
				"make the snapshot anew", snapshot->path, name, part->size);
	return lcp_keep_fd(&fd);
}
