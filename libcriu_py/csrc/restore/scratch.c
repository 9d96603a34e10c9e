#define _GNU_SOURCE
#include "restore/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/problem.h"

#define SYSTEM_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define NO_BREAKPOINTS "CRIU_FAULT=130"

static int own_directory(const char *path, struct problem *problem)
{
	struct stat status;

	if (!mkdir(path, 0700))
		return 0;
	if (errno != EEXIST)
		return lcp_problem_set(problem, LAUNCHER_FAILED, "%s cannot be made: %s", path, strerror(errno));
	if (!lstat(path, &status) && S_ISDIR(status.st_mode) && status.st_uid == geteuid() && !(status.st_mode & 077))
		return 0;
	return lcp_problem_set(problem, LAUNCHER_FAILED,
			       "%s is not a directory that only uid %u may enter, and criu's files would not be private there; "
			       "remove it: rm -r %s", path, geteuid(), path);
}

static int join(char *path, size_t size, struct problem *problem, const char *base, const char *name)
{
	if ((size_t)snprintf(path, size, "%s/%s", base, name) >= size)
		return lcp_problem_set(problem, LAUNCHER_FAILED, "the path %s is too long", base);
	return 0;
}

int lcp_scratch_directory(char path[PATH_MAX], struct problem *problem)
{
	static char known[PATH_MAX]; /* once it was looked at: it is asked for four times */
	const char *base = "/dev/shm";
	char name[40];
	struct stat status;

	if (*known) {
		strcpy(path, known);
		return 0;
	}
	if (stat(base, &status) || !S_ISDIR(status.st_mode)) {
		base = getenv("XDG_RUNTIME_DIR");
		if (!base || !*base)
			base = "/tmp";
	}
	snprintf(name, sizeof(name), "libcriu_py-%u", geteuid());
	if (join(path, PATH_MAX, problem, base, name) || own_directory(path, problem))
		return -1;
	strcpy(known, path);
	return 0;
}

int lcp_scratch_environment(struct criu_environment *environment, const char *criu, int filtered, struct problem *problem)
{
	char name[160], base[PATH_MAX];
	char *path = environment->cache + strlen("XDG_RUNTIME_DIR=");
	struct stat status;

	if (stat(criu, &status))
		return lcp_problem_set(problem, LAUNCHER_FAILED, "%s: %s", criu, strerror(errno));
	/* The cache is tied to one build of criu. */
	snprintf(name, sizeof(name), "kdat-%llx-%llx-%llx%s", (unsigned long long)status.st_dev,
		 (unsigned long long)status.st_ino,
		 (unsigned long long)status.st_mtim.tv_sec * 1000000000ULL + (unsigned long long)status.st_mtim.tv_nsec,
		 filtered ? "-filtered" : "");
	strcpy(environment->cache, "XDG_RUNTIME_DIR=");
	if (lcp_scratch_directory(base, problem) || join(path, PATH_MAX, problem, base, name) || own_directory(path, problem))
		return -1;
	environment->variables[0] = environment->cache;
	environment->variables[1] = (char *)SYSTEM_PATH;
	environment->variables[2] = (char *)NO_BREAKPOINTS;
	environment->variables[3] = NULL;
	return 0;
}

int lcp_work_make(struct work *work, struct problem *problem)
{
	char base[PATH_MAX], name[64];
	unsigned long long random = 0;

	work->fd = -1;
	if (lcp_scratch_directory(base, problem))
		return -1;
	if (getrandom(&random, 6, 0) != 6)
		return lcp_problem_set(problem, LAUNCHER_FAILED, "no random numbers: %s", strerror(errno));
	snprintf(name, sizeof(name), "work-%d-%012llx", getpid(), random);
	if (join(work->path, sizeof(work->path), problem, base, name))
		return -1;
	if (mkdir(work->path, 0700))
		return lcp_problem_set(problem, LAUNCHER_FAILED, "%s cannot be made: %s", work->path, strerror(errno));
	work->fd = open(work->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (work->fd < 0)
		return lcp_problem_set(problem, LAUNCHER_FAILED, "%s: %s", work->path, strerror(errno));
	return 0;
}

void lcp_work_remove(const struct work *work)
{
	/* All that criu leaves in a work directory on restore (criu/stats.c). */
	unlinkat(work->fd, WORK_LOG, 0);
	unlinkat(work->fd, "stats-restore", 0);
	rmdir(work->path);
}
