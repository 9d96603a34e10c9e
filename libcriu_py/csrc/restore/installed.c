/*
 * The packages of a snapshot, and what could be imported where they are:
 * libcriu_py/snapshot/installed.py has recorded it, and says why.
 *
 * On the way to a copy these are a stat for each directory of sys.path. What is
 * in one is looked at only when its mtime is another.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/finding.h"
#include "restore/snapshot.h"

#define ANEW "; make the snapshot anew (--replace)"
#define LONGEST 300 /* name in a directory, with what is asked for in it */

/* Whether a module of the snapshot has that name: its record has them between slashes, which no file's name has. */
static int is_module(const struct snapshot *snapshot, const char *name, size_t length)
{
	char wanted[LONGEST];

	*wanted = '/';
	strcpy(mempcpy(wanted + 1, name, length), "/");
	return !!strstr(snapshot_text(snapshot, snapshot->facts->names), wanted);
}

static int ends_with(const char *name, size_t length, const char *end)
{
	size_t size = strlen(end);

	return length >= size && !strcmp(name + length - size, end);
}

static int is_package(int directory, const char *name)
{
	char path[LONGEST];

	strcpy(stpcpy(path, name), "/__init__.py");
	return !faccessat(directory, path, F_OK, 0);
}

/* Whether a name in a directory could be imported in place of a module of the snapshot. */
static int could_be_imported(const struct snapshot *snapshot, int directory, const char *name)
{
	size_t length = strlen(name), top = strcspn(name, ".");
	const char *rest = name + top;

	if (!is_module(snapshot, name, top))
		return 0;
	if (!*rest)
		return is_package(directory, name);
	return !strcmp(rest, ".py") || !strcmp(rest, ".pyc") || ends_with(name, length, ".so");
}

/* The same, or whether it is of a package's metadata. */
static int counts(const struct snapshot *snapshot, int directory, const char *name)
{
	static const char *const metadata[] = { ".dist-info", ".egg-info", ".egg-link", ".pth" };

	for (size_t i = 0; i < sizeof(metadata) / sizeof(*metadata); i++)
		if (ends_with(name, strlen(name), metadata[i]))
			return 1;
	return could_be_imported(snapshot, directory, name);
}

/* Whether the snapshot has the code of a name in a directory: of that file, or of a package. */
static int is_source(const struct snapshot *snapshot, const char *directory, const char *name)
{
	size_t length = strlen(directory);

	record_for_each(struct record_compared, file, snapshot->record, snapshot->facts->sources) {
		const char *path = snapshot_text(snapshot, file->path);

		if (strncmp(path, directory, length) || path[length] != '/')
			continue;
		path += length + 1;
		if (!strncmp(path, name, strlen(name)) && strchr("/", path[strlen(name)]))
			return 1;
	}
	return 0;
}

int lcp_finds_modules(const struct snapshot *snapshot, const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	int result = 0;

	while (directory && !result && (entry = readdir(directory)))
		result = could_be_imported(snapshot, dirfd(directory), entry->d_name) &&
			 !is_source(snapshot, path, entry->d_name);
	if (directory)
		closedir(directory);
	return result;
}

uint64_t lcp_hash(const char *text)
{
	uint64_t value = 0xcbf29ce484222325;

	for (; *text; text++)
		value = (value ^ (unsigned char)*text) * 0x100000001b3;
	return value;
}

/* The sum over all names that count, in whatever order they come; 0 or -1. */
static int digest(const struct snapshot *snapshot, const char *path, uint64_t *sum)
{
	struct dirent *entry;
	DIR *directory = opendir(path);

	if (!directory)
		return -1;
	*sum = 0;
	while ((entry = readdir(directory)))
		if (counts(snapshot, dirfd(directory), entry->d_name))
			*sum += lcp_hash(entry->d_name);
	closedir(directory);
	return 0;
}

static void check_package(struct finding *finding, const struct record_compared *file, const char *path)
{
	struct stat status;

	if (stat(path, &status))
		found(finding, "%s, of a package whose code the snapshot holds, is not there (%s)" ANEW, path, strerror(errno));
	else if (lcp_is_changed(file, &status))
		found(finding, "%s, of a package whose code the snapshot holds, was changed after the dump" ANEW, path);
}

static void check_directory(struct finding *finding, const struct snapshot *snapshot, const struct record_compared *then)
{
	const char *path = snapshot_text(snapshot, then->path);
	struct stat status;
	uint64_t sum;

	if (!stat(path, &status) && !lcp_is_touched(then, &status))
		return;
	if (digest(snapshot, path, &sum))
		found(finding, "%s, of the program's sys.path, cannot be read (%s)" ANEW, path, strerror(errno));
	else if (sum != then->size)
		found(finding, "%s, of the program's sys.path, has other packages than at the dump" ANEW, path);
}

void lcp_check_installed(struct finding *finding, const struct snapshot *snapshot)
{
	const struct record_facts *facts = snapshot->facts;
	int touched = 0;

	record_for_each(struct record_compared, directory, snapshot->record, facts->directories) {
		struct stat status;

		touched |= stat(snapshot_text(snapshot, directory->path), &status) || lcp_is_touched(directory, &status);
	}
	record_for_each(struct record_compared, file, snapshot->record, facts->packages) {
		const char *path = snapshot_text(snapshot, file->path);

		/* Who writes a RECORD makes, renames or removes the directory that it is in. */
		if (touched || !ends_with(path, file->path.length, "/RECORD"))
			check_package(finding, file, path);
	}
	/* Else that is why. */
	if (!touched || finding->count)
		return;
	record_for_each(struct record_compared, directory, snapshot->record, facts->directories)
		check_directory(finding, snapshot, directory);
}
