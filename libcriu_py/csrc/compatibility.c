#define _GNU_SOURCE
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

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
		problem_set(finding->problem, SNAPSHOT_UNUSABLE, "%s cannot be restored here: ", finding->path);
	else if (finding->count <= REASONS)
		problem_add(finding->problem, "; ");
	return finding->count <= REASONS;
}

#define found(finding, ...) \
	do { \
		if (another(finding)) \
			problem_add((finding)->problem, __VA_ARGS__); \
	} while (0)

/* ---- the machine ------------------------------------------------------ */

/* The feature flags of the first processor, with a space before and after each. */
static const char *processor_flags(char *buffer)
{
	int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buffer, FIRST_PROCESSOR);
	char *line, *end;

	if (fd >= 0)
		close(fd);
	buffer[n > 0 ? n : 0] = '\0';
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

static int has_flag(const char *flags, const char *flag)
{
	size_t length = strlen(flag);

	for (const char *at = flags; length && (at = strstr(at, flag)); at += length)
		if (at > flags && at[-1] == ' ' && (at[length] == ' ' || at[length] == '\0'))
			return 1;
	return 0;
}

static void check_machine(struct finding *finding, const struct json *machine)
{
	const char *arch = json_string(json_get(machine, "arch")), *flags;
	const struct json *recorded = json_get(machine, "cpu_flags");
	char buffer[FIRST_PROCESSOR + 2];
	struct utsname system;
	int missing = 0;

	uname(&system);
	if (strcmp(system.machine, arch)) {
		found(finding, "the snapshot is for %s processors, this is a %s", arch, system.machine);
		return;
	}
	flags = processor_flags(buffer);
	json_for_each(flag, recorded) {
		if (has_flag(flags, flag->string))
			continue;
		if (missing++)
			problem_add(finding->problem, " %s", flag->string);
		else
			found(finding, "this processor lacks %s", flag->string);
	}
	if (missing)
		problem_add(finding->problem, ", which the program may have chosen to use; "
			    "make the snapshot on the oldest of your machines");
}

/* ---- user and files --------------------------------------------------- */

static void check_identity(struct finding *finding, const struct json *manifest)
{
	long long uid = json_integer(json_get(manifest, "uid"), -1);
	long long gid = json_integer(json_get(manifest, "gid"), getegid());

	if (geteuid() == 0)
		return; /* root can become whoever the program was; whether this one can, is found out later */
	if (uid != geteuid())
		found(finding, "the program ran as uid %lld, this is uid %u", uid, geteuid());
	else if (gid != getegid())
		found(finding, "the program ran with gid %lld, this is gid %u; change it with newgrp or sg", gid, getegid());
}

static void check_files(struct finding *finding, const struct snapshot *snapshot)
{
	const struct json *files = json_get(snapshot->manifest, "files");

	json_for_each(file, files) {
		long long size = json_integer(json_get(file, "size"), -1);
		struct stat status;

		if (fstatat(snapshot->directory, file->name, &status, 0))
			found(finding, "%s/%s cannot be read (%s); make the snapshot anew", snapshot->path, file->name,
			      strerror(errno));
		else if (status.st_size != size)
			found(finding, "%s/%s has %lld bytes instead of %lld; make the snapshot anew", snapshot->path,
			      file->name, (long long)status.st_size, size);
	}
}

static void check_place(struct finding *finding, const struct snapshot *snapshot)
{
	const struct json *code = json_typed(json_get(json_get(snapshot->manifest, "memory"), "executable"), JSON_BOOL);
	struct statvfs status;

	if (code && code->integer && !fstatvfs(snapshot->directory, &status) && status.f_flag & ST_NOEXEC)
		found(finding, "%s is on a file system that is mounted noexec, from which the code of libraries cannot be "
		      "mapped; move it to another one", snapshot->path);
}

/* Compare size and mtime; layers of container images keep no more of that than its second. */
static int is_changed(const struct json *file, const struct stat *status)
{
	long long then = json_integer(json_get(file, "mtime_ns"), -1);
	long long second = then / SECOND, rest = then % SECOND;

	if (rest < 0) { /* before 1970 */
		rest += SECOND;
		second--;
	}
	return status->st_size != json_integer(json_get(file, "size"), -1) || status->st_mtim.tv_sec != second ||
	       (status->st_mtim.tv_nsec && status->st_mtim.tv_nsec != rest);
}

static void check_mapped_file(struct finding *finding, const struct json *file)
{
	const char *path = json_string(json_get(file, "path"));
	struct stat status;
	unsigned int mode;

	if (stat(path, &status)) {
		found(finding, "%s, which the program has mapped, is not there (%s)", path, strerror(errno));
		return;
	}
	/* criu compares the mode of each file with that of the dump (`validate_file` in criu/files-reg.c). */
	mode = (unsigned int)json_integer(json_get(file, "mode"), status.st_mode);
	if (mode != status.st_mode)
		found(finding, "%s, which the program has mapped, has mode %04o, and at the dump %04o; chmod %04o %s, "
		      "or make the snapshot anew", path, status.st_mode & 07777, mode & 07777, mode & 07777, path);
	if (is_changed(file, &status))
		found(finding, "%s, which the program has mapped, was changed after the dump; make the snapshot anew", path);
}

/* A file of a module of the user's own (libcriu_py/snapshot/sources.py). */
static void check_source(struct finding *finding, const struct json *file)
{
	const char *path = json_string(json_get(file, "path"));
	struct stat status;

	if (stat(path, &status))
		found(finding, "%s, whose code the snapshot holds, is not there (%s); "
		      "put it back, or make the snapshot anew (--replace)", path, strerror(errno));
	else if (is_changed(file, &status))
		found(finding, "%s, whose code the snapshot holds, was changed after the dump; "
		      "make the snapshot anew (--replace)", path);
}

/* Variables that an interpreter reads at its start only (libcriu_py/program/start_variables.py), with their values at the dump. */
static void check_variables(struct finding *finding, const struct json *variables)
{
	if (!variables)
		return; /* of an interpreter that ignores its environment, or of an older manifest */
	json_for_each(variable, variables) {
		const char *then = json_string(variable), *now;

		if (!variable->name || !then)
			continue; /* an array, or no string: not written by us */
		now = getenv(variable->name);
		now = now ? now : "";
		if (strcmp(now, then))
			found(finding, "%s is %s%s%s, and was %s%s%s when the interpreter of the snapshot started",
			      variable->name, *now ? "'" : "", *now ? now : "not set", *now ? "'" : "", *then ? "'" : "",
			      *then ? then : "not set", *then ? "'" : "");
	}
}

int snapshot_check(const struct snapshot *snapshot, int with_variables, struct problem *problem)
{
	struct finding finding = { problem, snapshot->path, 0 };
	const struct json *mapped = json_get(snapshot->manifest, "mapped");
	const struct json *sources = json_get(snapshot->manifest, "sources");

	check_machine(&finding, json_get(snapshot->manifest, "machine"));
	check_identity(&finding, snapshot->manifest);
	if (with_variables)
		check_variables(&finding, json_get(json_get(snapshot->manifest, "python"), "variables"));
	check_files(&finding, snapshot);
	check_place(&finding, snapshot);
	json_for_each(file, mapped)
		check_mapped_file(&finding, file);
	json_for_each(file, sources)
		check_source(&finding, file);
	if (finding.count > REASONS)
		problem_add(problem, " (and %d more)", finding.count - REASONS);
	return finding.count ? -1 : 0;
}
