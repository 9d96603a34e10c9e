#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/files.h"
#include "restore/manifest.h"
#include "restore/problem.h"
#include "restore/record.h"

#define FIRST_PROCESSOR 8192 /* bytes of /proc/cpuinfo that hold it; a read of all is slow on large machines */
#define REASONS 3            /* that are given in full */
#define SECOND 1000000000LL

struct finding {
	struct problem *problem;
	const char *path;    /* of the snapshot */
	int count;
};

/* Begin a further reason: whether it is to be written. */
static int another(struct finding *finding)
{
	if (finding->count++ == 0)
		lcp_problem_set(finding->problem, SNAPSHOT_UNUSABLE, "%s cannot be restored here: ", finding->path);
	else if (finding->count <= REASONS)
		lcp_problem_add(finding->problem, "; ");
	return finding->count <= REASONS;
}

#define found(finding, ...) \
	do { \
		if (another(finding)) \
			lcp_problem_add((finding)->problem, __VA_ARGS__); \
	} while (0)

/* ---- the machine ------------------------------------------------------ */

/* The feature flags of the first processor, with a space before and after each. */
static const char *processor_flags(char *buffer)
{
	char *line, *end;

	lcp_read_text("/proc/cpuinfo", buffer, FIRST_PROCESSOR + 1);
	for (line = buffer; *line; line = end + 1) {
		end = strchrnul(line, '\n');
		if (!strncmp(line, "flags", 5) || !strncmp(line, "Features", 8)) {
			if (*end)
				*end = ' ';
			end[*end ? 1 : 0] = '\0';
			line = strchr(line, ':');
			return line ? line + 1 : "";
		}
		if (!*end)
			break;
	}
	return "";
}

static int has_flag(const char *flags, const char *flag, size_t length)
{
	for (const char *at = flags; (at = memmem(at, strlen(at), flag, length)); at += length)
		if (at > flags && at[-1] == ' ' && (at[length] == ' ' || at[length] == '\0'))
			return 1;
	return 0;
}

/* Name the flags of a text that are not among those of this processor. */
static void compare_flags(struct finding *finding, const char *recorded, const char *flags)
{
	size_t length = strlen(recorded);
	int missing = 0;

	/* On the machine of the dump, or one like it, there are as many, in the same order. */
	if (*flags == ' ' && !strncmp(flags + 1, recorded, length) && (flags[1 + length] == ' ' || !flags[1 + length]))
		return;
	for (const char *flag = recorded; *flag; flag += length + (flag[length] == ' ')) {
		length = strcspn(flag, " ");
		if (!length || has_flag(flags, flag, length))
			continue;
		if (missing++)
			lcp_problem_add(finding->problem, " %.*s", (int)length, flag);
		else
			found(finding, "this processor lacks %.*s", (int)length, flag);
	}
	if (missing)
		lcp_problem_add(finding->problem, ", which the program may have chosen to use; "
				"make the snapshot on the oldest of your machines");
}

static void check_machine(struct finding *finding, const struct snapshot *snapshot)
{
	const char *arch = snapshot_text(snapshot, snapshot->facts->arch);
	char buffer[FIRST_PROCESSOR + 2];
	struct utsname system;

	uname(&system);
	if (strcmp(system.machine, arch))
		found(finding, "the snapshot is for %s processors, this is a %s", arch, system.machine);
	else
		compare_flags(finding, snapshot_text(snapshot, snapshot->facts->cpu_flags), processor_flags(buffer));
}

/* ---- user and files --------------------------------------------------- */

static void check_identity(struct finding *finding, const struct record_facts *facts)
{
	if (geteuid() == 0)
		return; /* root can become whoever the program was; whether this one can, is found out later */
	if (facts->uid != geteuid())
		found(finding, "the program ran as uid %u, this is uid %u", facts->uid, geteuid());
	else if (facts->gid != getegid())
		found(finding, "the program ran with gid %u, this is gid %u; change it with newgrp or sg", facts->gid,
		      getegid());
}

static void check_files(struct finding *finding, const struct snapshot *snapshot)
{
	record_for_each(struct record_file, file, snapshot->record, snapshot->facts->files) {
		const char *name = snapshot_text(snapshot, file->name);
		struct stat status;

		if (fstatat(snapshot->directory, name, &status, 0))
			found(finding, "%s/%s cannot be read (%s); make the snapshot anew", snapshot->path, name,
			      strerror(errno));
		else if ((uint64_t)status.st_size != file->size)
			found(finding, "%s/%s has %lld bytes instead of %" PRIu64 "; make the snapshot anew",
			      snapshot->path, name,
			      (long long)status.st_size, file->size);
	}
}

static void check_place(struct finding *finding, const struct snapshot *snapshot)
{
	struct statvfs status;

	if (snapshot->facts->flags & RECORD_MAPS_CODE && !fstatvfs(snapshot->directory, &status) && status.f_flag & ST_NOEXEC)
		found(finding, "%s is on a file system that is mounted noexec, from which the code of libraries cannot be "
		      "mapped; move it to another one", snapshot->path);
}

/* Compare size and mtime; layers of container images keep no more of that than its second. */
static int is_changed(const struct record_compared *file, const struct stat *status)
{
	long long second = file->mtime_ns / SECOND, rest = file->mtime_ns % SECOND;

	if (rest < 0) { /* before 1970 */
		rest += SECOND;
		second--;
	}
	return (uint64_t)status->st_size != file->size || status->st_mtim.tv_sec != second ||
	       (status->st_mtim.tv_nsec && status->st_mtim.tv_nsec != rest);
}

static void check_mapped_file(struct finding *finding, const struct record_compared *file, const char *path)
{
	struct stat status;

	if (stat(path, &status)) {
		found(finding, "%s, which the program has mapped, is not there (%s)", path, strerror(errno));
		return;
	}
	/* criu compares the mode of each file with that of the dump (`validate_file` in criu/files-reg.c). */
	if (file->mode && file->mode != status.st_mode)
		found(finding, "%s, which the program has mapped, has mode %04o, and at the dump %04o; chmod %04o %s, "
		      "or make the snapshot anew", path, status.st_mode & 07777, file->mode & 07777, file->mode & 07777, path);
	if (is_changed(file, &status))
		found(finding, "%s, which the program has mapped, was changed after the dump; make the snapshot anew", path);
}

/* A file of a module of the user's own (libcriu_py/snapshot/sources.py). */
static void check_source(struct finding *finding, const struct record_compared *file, const char *path)
{
	struct stat status;

	if (stat(path, &status))
		found(finding, "%s, whose code the snapshot holds, is not there (%s); "
		      "put it back, or make the snapshot anew (--replace)", path, strerror(errno));
	else if (is_changed(file, &status))
		found(finding, "%s, whose code the snapshot holds, was changed after the dump; "
		      "make the snapshot anew (--replace)", path);
}

/* Variables that an interpreter reads at its start only (libcriu_py/program/start_variables.py), with their values at the dump. */
static void check_variables(struct finding *finding, const struct snapshot *snapshot)
{
	record_for_each(struct record_variable, variable, snapshot->record, snapshot->facts->variables) {
		const char *name = snapshot_text(snapshot, variable->name), *then = snapshot_text(snapshot, variable->value);
		const char *now = getenv(name);

		now = now ? now : "";
		if (strcmp(now, then))
			found(finding, "%s is %s%s%s, and was %s%s%s when the interpreter of the snapshot started", name,
			      *now ? "'" : "", *now ? now : "not set", *now ? "'" : "", *then ? "'" : "", *then ? then : "not set",
			      *then ? "'" : "");
	}
}

int lcp_snapshot_check(const struct snapshot *snapshot, int with_variables, struct problem *problem)
{
	struct finding finding = { problem, snapshot->path, 0 };

	check_machine(&finding, snapshot);
	check_identity(&finding, snapshot->facts);
	if (with_variables)
		check_variables(&finding, snapshot);
	check_files(&finding, snapshot);
	check_place(&finding, snapshot);
	record_for_each(struct record_compared, file, snapshot->record, snapshot->facts->mapped)
		check_mapped_file(&finding, file, snapshot_text(snapshot, file->path));
	record_for_each(struct record_compared, file, snapshot->record, snapshot->facts->sources)
		check_source(&finding, file, snapshot_text(snapshot, file->path));
	if (finding.count > REASONS)
		lcp_problem_add(problem, " (and %d more)", finding.count - REASONS);
	return finding.count ? -1 : 0;
}
