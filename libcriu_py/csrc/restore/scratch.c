#define _GNU_SOURCE
#include "restore/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "restore/problem.h"

static int own_directory(const char *path, struct problem *problem)
{
	struct stat status;

	/* It is there but for the first time, and mkdir would have to wait for all who change something beside it. */
	if (lstat(path, &status)) {
		if (!mkdir(path, 0700))
			return 0;
		if (errno != EEXIST)
			return lcp_failed(problem, "%s cannot be made: %s", path, strerror(errno));
		if (lstat(path, &status)) /* another start made it */
			return lcp_failed(problem, "%s cannot be found: %s", path, strerror(errno));
	}
	if (S_ISDIR(status.st_mode) && status.st_uid == geteuid() && !(status.st_mode & 077))
		return 0;
	return lcp_failed(
		problem,
		"%s is not a directory that only uid %u may enter, and criu's files would not be private there; "
		"remove it: rm -r %s",
		path, geteuid(), path);
}

/* Write the path of a name in the user's directory; 0 or -1. */
static int join(char *path, size_t size, struct problem *problem, const char *name)
{
	const char *base = lcp_scratch_directory(problem);

	if (!base)
		return -1;
	if ((size_t)snprintf(path, size, "%s/%s", base, name) >= size)
		return lcp_failed(problem, "the path %s is too long", base);
	return 0;
}

const char *lcp_scratch_directory(struct problem *problem)
{
	static char path[PATH_MAX];
	static int is_checked;
	const char *base = "/dev/shm";
	struct stat status;

	if (is_checked)
		return path;
	if (stat(base, &status) || !S_ISDIR(status.st_mode) || access(base, W_OK)) {
		base = getenv("XDG_RUNTIME_DIR");
		if (!base || !*base)
			base = "/tmp";
	}
	if (snprintf(path, sizeof(path), "%s/libcriu_py-%u", base, geteuid()) >= (int)sizeof(path)) {
		lcp_failed(problem, "the path %s is too long", base);
		return NULL;
	}
	is_checked = !own_directory(path, problem);
	return is_checked ? path : NULL;
}

char *lcp_criu_cache(const char *criu, int filtered, struct problem *problem)
{
	static const char name[] = "XDG_RUNTIME_DIR=";
	const char *base = lcp_scratch_directory(problem);
	AUTO_FREE char *variable = NULL;
	struct stat status;
	char *kept;

	if (!base)
		return NULL;
	if (stat(criu, &status)) {
		lcp_failed(problem, "%s: %s", criu, strerror(errno));
		return NULL;
	}
	/* The cache is tied to one build of criu. */
	if (asprintf(&variable, "%s%s/kdat-%llx-%llx-%llx%s", name, base, (unsigned long long)status.st_dev,
		     (unsigned long long)status.st_ino, (unsigned long long)status.st_mtim.tv_sec * 1000000000ULL +
		     (unsigned long long)status.st_mtim.tv_nsec, filtered ? "-filtered" : "") < 0 ||
	    own_directory(variable + sizeof(name) - 1, problem))
		return NULL;
	kept = variable;
	variable = NULL;
	return kept;
}

int lcp_work_choose(struct work *work, struct problem *problem)
{
	unsigned long long random = 0;
	char name[40];

	work->fd = -1;
	if (getrandom(&random, 6, 0) != 6)
		return lcp_failed(problem, "no random numbers: %s", strerror(errno));
	snprintf(name, sizeof(name), "work-%d-%012llx", getpid(), random);
	return join(work->path, sizeof(work->path), problem, name);
}

static int open_work(const struct work *this)
{
	return open(this->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int lcp_work_make(void *work)
{
	struct work *this = work;

	if (mkdir(this->path, 0700))
		return -errno;
	this->fd = open_work(this);
	return this->fd < 0 ? -errno : this->fd;
}

void lcp_work_remove(void *work)
{
	const struct work *this = work;
	AUTO_CLOSE int opened = this->fd < 0 ? open_work(this) : -1;
	int fd = this->fd < 0 ? opened : this->fd;

	if (fd < 0)
		return;
	/* All that criu leaves in a work directory on restore (criu/stats.c). */
	unlinkat(fd, WORK_LOG, 0);
	unlinkat(fd, "stats-restore", 0);
	rmdir(this->path);
}
