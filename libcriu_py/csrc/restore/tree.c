#define _GNU_SOURCE
#include "restore/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "restore/problem.h"

#define GROUP_OR_OTHERS_WRITE 0022
#define OVERFLOW 65534 /* whom files seem to belong to whose owner has no number in this user namespace */
#define TRIES 100

int lcp_tree_refuse_status(const struct stat *status, const char *path, const char *name, struct problem *problem)
{
	uid_t me = geteuid();

	if (status->st_uid != me && status->st_uid != 0)
		return lcp_problem_set(problem, SNAPSHOT_UNUSABLE,
				       "%s%s belongs to uid %u, not to uid %u: restoring it would run that user's code; "
				       "make a snapshot of your own", path, name, status->st_uid, me);
	if (status->st_mode & GROUP_OR_OTHERS_WRITE)
		return lcp_problem_set(problem, SNAPSHOT_UNUSABLE,
				       "%s%s can be written by others (mode %04o); chmod go-w %s%s",
				       path, name, status->st_mode & 07777, path, name);
	return 0;
}

int lcp_tree_refuse(int fd, const char *path, const char *name, struct stat *status, struct problem *problem)
{
	if (fstat(fd, status))
		return lcp_problem_set(problem, SNAPSHOT_UNUSABLE, "%s%s cannot be read: %s", path, name, strerror(errno));
	return lcp_tree_refuse_status(status, path, name, problem);
}

/* Whether this is a user namespace in which not every account has a number. */
static int hides_owners(void)
{
	AUTO_FCLOSE FILE *map = fopen("/proc/self/uid_map", "re");
	unsigned long first, outside, count;

	while (map && fscanf(map, "%lu %lu %lu", &first, &outside, &count) == 3)
		if (first <= OVERFLOW && OVERFLOW < first + count)
			return 0;
	return map != NULL;
}

/* Whether another ordinary user owns a directory in which something is to stay in its place. */
static int is_foreign(const struct stat *status)
{
	return status->st_uid != geteuid() && status->st_uid != 0 && !(status->st_uid == OVERFLOW && hides_owners());
}

/* Whether another could write to it; the group that an account has to itself has its number. */
static int is_open(const struct stat *status)
{
	return status->st_mode & (status->st_gid == status->st_uid ? 0002 : GROUP_OR_OTHERS_WRITE) &&
	       !(status->st_mode & S_ISVTX);
}

/* Refuse a directory in which another ordinary user could replace what leads to a snapshot; 0 or -1. */
static int refuse_parent(int fd, const char *path, struct problem *problem)
{
	struct stat status;

	if (fstat(fd, &status))
		return -errno - 1;
	if (is_foreign(&status))
		return lcp_problem_set(problem, SNAPSHOT_UNUSABLE,
				       "%s belongs to uid %u, who could put another snapshot in the place of one in it; "
				       "keep snapshots in directories of your own", path, status.st_uid);
	if (is_open(&status))
		return lcp_problem_set(problem, SNAPSHOT_UNUSABLE,
				       "%s can be written by others (mode %04o), who could put another snapshot in the place "
				       "of one in it; chmod go-w %s", path, status.st_mode & 07777, path);
	return 0;
}

int lcp_tree_refuse_program(const char *path, struct problem *problem)
{
	char way[PATH_MAX], *slash;
	struct stat status;
	int is_file = 1;

	if (geteuid() || !realpath(path, way))
		return 0;
	for (;; is_file = 0) {
		if (stat(*way ? way : "/", &status))
			return 0;
		if (is_file ? status.st_uid != 0 : is_foreign(&status))
			return lcp_problem_set(problem, LAUNCHER_FAILED, "%s belongs to uid %u", *way ? way : "/",
					       status.st_uid);
		if (is_file ? status.st_mode & GROUP_OR_OTHERS_WRITE : (mode_t)is_open(&status))
			return lcp_problem_set(problem, LAUNCHER_FAILED, "%s can be written by others (mode %04o)",
					       *way ? way : "/", status.st_mode & 07777);
		slash = strrchr(way, '/');
		if (!slash)
			return 0;
		*slash = '\0';
	}
}

/* Open a directory by each of those that lead to it, all of which are checked. */
static int walk(const char *path, struct problem *problem)
{
	int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), inner, result, is_last;
	char way[PATH_MAX], *name = way + 1, *end;

	snprintf(way, sizeof(way), "%s", path);
	while (fd >= 0 && *name) {
		end = strchrnul(name, '/');
		is_last = !*end;
		*end = name[-1] = '\0'; /* the path of the directory that is open, and a name in it */
		result = refuse_parent(fd, *way ? way : "/", problem);
		inner = result ? -1 : openat(fd, name, (is_last ? O_RDONLY : O_PATH) | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (!result && inner < 0)
			result = -errno - 1;
		close(fd);
		if (result)
			return result;
		fd = inner;
		name[-1] = '/';
		name = end + !is_last;
	}
	return fd < 0 ? -errno - 1 : fd;
}

int lcp_tree_open(const char *path, struct problem *problem)
{
	const struct timespec moment = { 0, 1000000 };
	int fd;

	for (int i = 0; i < TRIES; i++) {
		fd = walk(path, problem);
		/* Where a file system has no locks, nobody can be told that we read. */
		if (fd < 0 || !flock(fd, LOCK_SH | LOCK_NB) || errno != EWOULDBLOCK)
			return fd;
		close(fd); /* it is being removed, and another is in its place */
		nanosleep(&moment, NULL);
	}
	return -EBUSY - 1;
}

void lcp_tree_release(int directory)
{
	flock(directory, LOCK_UN);
}

int lcp_tree_is_at(int directory, const char *path)
{
	struct stat ours, there;

	return fstat(directory, &ours) || stat(path, &there) || (ours.st_dev == there.st_dev && ours.st_ino == there.st_ino);
}
