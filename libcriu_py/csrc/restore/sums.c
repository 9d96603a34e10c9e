#define _GNU_SOURCE
#include "restore/sums.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/files.h"
#include "common/sum.h"
#include "restore/order.h"
#include "restore/problem.h"
#include "restore/scratch.h"
#include "restore/snapshot.h"
#include "restore/tree.h"

#define LARGEST_SMALL (64 << 10) /* as in record.py, which marks those that are larger */
#define IMAGES "images/"
#define NOTE 128
#define VARIABLE "LIBCRIU_PY_VERIFY"

static const char *const names[VERIFY_LEVELS] = { "", "arrival", "once", "always" };

int lcp_verify_level(const struct order *order, int *level, struct problem *problem)
{
	const char *name = getenv(VARIABLE);

	*level = order ? (int)ORDER_VERIFY(order->flags) : VERIFY_UNSET;
	if (*level == VERIFY_UNSET && name && *name) {
		for (*level = VERIFY_ARRIVAL; *level < VERIFY_LEVELS && strcmp(names[*level], name); ++*level)
			;
		if (*level == VERIFY_LEVELS)
			return lcp_problem_set(problem, LAUNCHER_FAILED,
					       VARIABLE " must be arrival, once or always, not '%s'", name);
	}
	return 0;
}

void lcp_sums_begin(struct sums *sums, const struct snapshot *snapshot)
{
	sums->snapshot = snapshot;
	sums->touched = 0;
	sums->large = 0;
	sums->images = openat(snapshot->directory, "images", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

void lcp_sums_end(struct sums *sums)
{
	if (sums->images >= 0)
		close(sums->images);
}

/* Open a file of the snapshot, with no link on the way to it. */
static int open_file(const struct sums *sums, const char *name)
{
	const char *slash = strrchr(name, '/');
	AUTO_CLOSE int other = -1;
	int directory = sums->snapshot->directory;
	char way[PATH_MAX];

	if (slash && !strncmp(name, IMAGES, strlen(IMAGES)) && slash == name + strlen(IMAGES) - 1) {
		directory = sums->images;
	} else if (slash) {
		snprintf(way, sizeof(way), "%.*s", (int)(slash - name), name);
		directory = other = openat(directory, way, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	if (directory < 0)
		return -errno;
	/* A FIFO in its place must not make us wait. */
	directory = openat(directory, slash ? slash + 1 : name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	return directory < 0 ? -errno : directory;
}

/* What the kernel says of a file changes when it is written to; as `_touched` of sums.py. */
static uint32_t touched(uint32_t sum, const struct stat *status)
{
	const uint64_t facts[] = {
		status->st_dev,
		status->st_ino,
		(uint64_t)status->st_size,
		(uint64_t)status->st_mtim.tv_sec * 1000000000 + (uint64_t)status->st_mtim.tv_nsec,
		(uint64_t)status->st_ctim.tv_sec * 1000000000 + (uint64_t)status->st_ctim.tv_nsec,
	};

	return lcp_sum(sum, facts, sizeof(facts));
}

/* Whether a small file has its sum; 0, SUMS_DIFFER or -errno. */
static int read_small(int fd, const struct record_file *file)
{
	static unsigned char content[LARGEST_SMALL + 1];
	ssize_t size = read(fd, content, sizeof(content));

	if (size < 0)
		return -errno;
	return (uint64_t)size == file->size && lcp_sum(0, content, (size_t)size) == file->sum ? 0 : SUMS_DIFFER;
}

/* Ask the kernel about a file, and open one that is to be read; its descriptor, -1, or -errno - 1. */
static int look_at(const struct sums *sums, const struct record_file *file, const char *name, struct stat *status)
{
	int fd;

	if (!file->size || file->flags & RECORD_LARGE)
		return fstatat(sums->snapshot->directory, name, status, AT_SYMLINK_NOFOLLOW) ? -errno - 1 : -1;
	fd = open_file(sums, name);
	if (fd < 0)
		return fd - 1;
	if (!fstat(fd, status))
		return fd;
	close(fd);
	return -EIO - 1;
}

int lcp_sums_look(struct sums *sums, const struct record_file *file, struct stat *status, struct problem *problem)
{
	const char *name = snapshot_text(sums->snapshot, file->name);
	AUTO_CLOSE int fd = look_at(sums, file, name, status);
	char part[NAME_MAX + 2];

	if (fd < -1)
		return fd + 1;
	if (status->st_uid != geteuid() || status->st_mode & 0022) {
		snprintf(part, sizeof(part), "/%s", name);
		if (lcp_tree_refuse_status(status, sums->snapshot->path, part, problem))
			return SUMS_UNSAFE;
	}
	if (!S_ISREG(status->st_mode))
		return -EINVAL;
	if ((uint64_t)status->st_size != file->size)
		return SUMS_SIZE;
	if (fd >= 0)
		return read_small(fd, file);
	if (file->flags & RECORD_LARGE) {
		sums->touched = touched(sums->touched, status);
		sums->large++;
	}
	return 0;
}

int lcp_sums_read(const struct sums *sums, const struct record_file *file)
{
	AUTO_CLOSE int fd = open_file(sums, snapshot_text(sums->snapshot, file->name));
	uint32_t sum;
	int result = fd < 0 ? fd : lcp_sum_file(fd, &sum);

	return result ? result : sum == file->sum ? 0 : SUMS_DIFFER;
}

/* ---- the note --------------------------------------------------------- */

static int note_path(const struct sums *sums, char path[PATH_MAX])
{
	const char *base = lcp_scratch_directory(NULL);
	struct stat status;

	if (!base || fstat(sums->snapshot->directory, &status))
		return -1;
	return snprintf(path, PATH_MAX, "%s/sound-%llx-%llx", base, (unsigned long long)status.st_dev,
			(unsigned long long)status.st_ino) < PATH_MAX ? 0 : -1;
}

/* The beginning of a note of this boot, of the record that is open. */
static void begin_note(const struct sums *sums, char note[NOTE])
{
	char boot[64];

	if (lcp_read_text("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)) < 0)
		strcpy(boot, "unknown"); /* /proc/sys is hidden */
	snprintf(note, NOTE, "%s %08x ", boot, sums->snapshot->record->checksum);
}

int lcp_sums_are_due(const struct sums *sums, int level)
{
	char path[PATH_MAX], noted[NOTE], begin[NOTE], whole[2 * NOTE];

	if (level == VERIFY_ALWAYS || !sums->large)
		return sums->large;
	begin_note(sums, begin);
	/* One of another boot, or of what was in this place before, says nothing. */
	if (note_path(sums, path) || lcp_read_text(path, noted, sizeof(noted)) < 0 || strncmp(noted, begin, strlen(begin))) {
		if (level != VERIFY_ONCE)
			lcp_sums_note(sums, 0);
		return level == VERIFY_ONCE;
	}
	snprintf(whole, sizeof(whole), "%s%08x read", begin, sums->touched);
	if (!strcmp(noted, whole))
		return 0;
	snprintf(whole, sizeof(whole), "%s%08x seen", begin, sums->touched);
	return level == VERIFY_ONCE || strcmp(noted, whole); /* they have been touched since */
}

void lcp_sums_note(const struct sums *sums, int were_read)
{
	AUTO_FREE char *new = NULL;
	char path[PATH_MAX], begin[NOTE];
	FILE *file;

	if (note_path(sums, path) || asprintf(&new, "%s.%d", path, getpid()) < 0)
		return;
	file = fopen(new, "we");
	if (!file)
		return; /* then they are read again the next time */
	begin_note(sums, begin);
	fprintf(file, "%s%08x %s\n", begin, sums->touched, were_read ? "read" : "seen");
	if (fclose(file) || rename(new, path))
		unlink(new);
}
