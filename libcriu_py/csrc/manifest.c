#define _GNU_SOURCE
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST "manifest.json"
#define LARGEST_MANIFEST (64 << 20)
#define GROUP_OR_OTHERS_WRITE 0022

/* ---- opening ---------------------------------------------------------- */

static int refuse_unsafe(int fd, const char *path, const char *name, struct stat *status, struct problem *problem)
{
	uid_t me = geteuid();

	if (fstat(fd, status))
		return problem_set(problem, SNAPSHOT_UNUSABLE, "%s%s cannot be read: %s", path, name, strerror(errno));
	if (status->st_uid != me && status->st_uid != 0)
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s%s belongs to uid %u, not to uid %u: restoring it would run that user's code; "
				   "make a snapshot of your own", path, name, status->st_uid, me);
	if (status->st_mode & GROUP_OR_OTHERS_WRITE)
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s%s can be written by others (mode %04o); chmod go-w %s%s",
				   path, name, status->st_mode & 07777, path, name);
	return 0;
}

static int cannot_open(const char *directory, struct problem *problem)
{
	int error = errno;

	if (error == ENOENT || error == ENOTDIR)
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s is no snapshot: it has no " MANIFEST "; make one with: libcriu-py snapshot -o %s ...",
				   directory, directory);
	return problem_set(problem, SNAPSHOT_UNUSABLE,
			   "%s cannot be read by this user: %s; a snapshot belongs to who made it",
			   directory, strerror(error));
}

static int read_all(int fd, char *text, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, text + done, size - done);

		if (n > 0)
			done += (size_t)n;
		else if (n == 0 || errno != EINTR)
			return -1; /* it became shorter, or cannot be read */
	}
	return 0;
}

static int read_manifest(struct snapshot *snapshot, int fd, struct problem *problem)
{
	struct stat status;
	size_t size;

	if (refuse_unsafe(fd, snapshot->path, "/" MANIFEST, &status, problem))
		return -1;
	if (!S_ISREG(status.st_mode) || status.st_size > LARGEST_MANIFEST)
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s/" MANIFEST " is not a manifest of libcriu_py; make the snapshot anew", snapshot->path);
	size = (size_t)status.st_size;
	snapshot->text = malloc(size + 1);
	if (!snapshot->text || read_all(fd, snapshot->text, size))
		return problem_set(problem, SNAPSHOT_UNUSABLE, "%s/" MANIFEST " cannot be read; make the snapshot anew",
				   snapshot->path);
	if (json_parse(&snapshot->document, snapshot->text, size))
		return problem_set(problem, SNAPSHOT_UNUSABLE, "%s/" MANIFEST " is damaged (%s: char %zu); make the snapshot anew",
				   snapshot->path, snapshot->document.error, snapshot->document.offset);
	return 0;
}

int all_strings(const struct json *array)
{
	if (!json_typed(array, JSON_ARRAY))
		return 0;
	json_for_each(item, array)
		if (item->type != JSON_STRING)
			return 0;
	return 1;
}

/* ---- its content ------------------------------------------------------ */

static int all_integers(const struct json *array)
{
	if (!json_typed(array, JSON_ARRAY))
		return 0;
	json_for_each(item, array)
		if (item->type != JSON_INTEGER)
			return 0;
	return 1;
}

static int sound_files(const struct json *files)
{
	if (!json_typed(files, JSON_OBJECT))
		return 0;
	json_for_each(file, files)
		if (!json_typed(json_get(file, "size"), JSON_INTEGER))
			return 0;
	return 1;
}

/* The files that were mapped, and those of modules. */
static int sound_compared(const struct json *compared)
{
	if (!json_typed(compared, JSON_ARRAY))
		return 0;
	json_for_each(file, compared)
		if (!json_string(json_get(file, "path")) || !json_typed(json_get(file, "size"), JSON_INTEGER) ||
		    !json_typed(json_get(file, "mtime_ns"), JSON_INTEGER))
			return 0;
	return 1;
}

static int sound_slots(const struct json *slots)
{
	return json_string(json_get(slots, "stdin")) && json_string(json_get(slots, "stdout")) &&
	       json_string(json_get(slots, "stderr")) && json_string(json_get(slots, "request"));
}

static int sound_part(const struct json *part)
{
	return json_string(json_get(part, "key")) && json_string(json_get(part, "file")) &&
	       json_typed(json_get(part, "size"), JSON_INTEGER);
}

static int sound_memory(const struct json *memory)
{
	const struct json *key = json_get(memory, "key"), *shared = json_get(memory, "shared");

	if (!key || key->type == JSON_NULL)
		return 1;
	if (!sound_part(memory) || (shared && (!json_typed(shared, JSON_ARRAY) || shared->count > MEMORY_FILES - 1)))
		return 0;
	json_for_each(part, shared)
		if (!sound_part(part))
			return 0;
	return 1;
}

static int is_sound(const struct json *manifest)
{
	const struct json *machine = json_get(manifest, "machine"), *command = json_get(manifest, "command");
	const struct json *groups = json_get(manifest, "groups"), *sources = json_get(manifest, "sources");

	return all_strings(command) && command->count && all_integers(json_get(manifest, "pids")) &&
	       sound_files(json_get(manifest, "files")) && sound_slots(json_get(manifest, "slots")) &&
	       json_string(json_get(manifest, "images_key")) && json_string(json_get(machine, "arch")) &&
	       json_string(json_get(machine, "kernel")) && all_strings(json_get(machine, "cpu_flags")) &&
	       sound_compared(json_get(manifest, "mapped")) && (!sources || sound_compared(sources)) &&
	       json_typed(json_get(manifest, "uid"), JSON_INTEGER) &&
	       (!groups || groups->type == JSON_NULL || all_integers(groups)) && sound_memory(json_get(manifest, "memory"));
}

static int check_content(const struct snapshot *snapshot, struct problem *problem)
{
	static const char *const needed[] = { "command", "pids", "files", "slots", "images_key", "machine",
					      "python", "mapped", "criu_version", "uid" };
	const struct json *manifest = snapshot->document.root, *format = json_get(manifest, "format");
	const char *separator = " ";

	if (!format)
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s/" MANIFEST " is not a manifest of libcriu_py; make the snapshot anew", snapshot->path);
	if (json_integer(format, -1) != MANIFEST_FORMAT)
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s/" MANIFEST " has format %lld, this version of libcriu_py reads format %d; "
				   "make the snapshot anew",
				   snapshot->path, (long long)json_integer(format, -1), MANIFEST_FORMAT);
	problem_set(problem, SNAPSHOT_UNUSABLE, "%s/" MANIFEST " lacks", snapshot->path);
	for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++) {
		if (json_get(manifest, needed[i]))
			continue;
		problem_add(problem, "%s%s", separator, needed[i]);
		separator = ", ";
	}
	if (separator[0] == ',') {
		problem_add(problem, "; make the snapshot anew");
		return -1;
	}
	if (!is_sound(manifest))
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s/" MANIFEST " is damaged (a value of the wrong type); make the snapshot anew",
				   snapshot->path);
	return 0;
}

int snapshot_open(struct snapshot *snapshot, const char *directory, struct problem *problem)
{
	struct stat status;
	int fd, result;

	memset(snapshot, 0, sizeof(*snapshot));
	snapshot->directory = -1;
	snapshot->path = realpath(directory, NULL);
	if (!snapshot->path)
		return cannot_open(directory, problem);
	snapshot->directory = open(snapshot->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (snapshot->directory < 0)
		return cannot_open(directory, problem);
	if (refuse_unsafe(snapshot->directory, snapshot->path, "", &status, problem))
		return -1;
	/* A FIFO in its place must not make us wait. */
	fd = openat(snapshot->directory, MANIFEST, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return cannot_open(directory, problem);
	result = read_manifest(snapshot, fd, problem);
	close(fd);
	if (result || check_content(snapshot, problem))
		return -1;
	snapshot->manifest = snapshot->document.root;
	return 0;
}

void snapshot_close(struct snapshot *snapshot)
{
	json_free(&snapshot->document);
	free(snapshot->text);
	free(snapshot->path);
	if (snapshot->directory >= 0)
		close(snapshot->directory);
	memset(snapshot, 0, sizeof(*snapshot));
	snapshot->directory = -1;
}

const struct json *snapshot_command(const struct snapshot *snapshot)
{
	/* There is a document only where the directory and the manifest are ours. */
	const struct json *command = json_get(snapshot->document.root, "command");

	return all_strings(command) && command->count ? command : NULL;
}

int snapshot_is_of_main(const struct snapshot *snapshot)
{
	const struct json *program = json_get(snapshot->document.root, "program");

	return program && program->type != JSON_NULL;
}

const char *snapshot_memory_key(const struct snapshot *snapshot)
{
	return json_string(json_get(json_get(snapshot->manifest, "memory"), "key"));
}

const struct json *snapshot_memory_file(const struct snapshot *snapshot, const struct json *part)
{
	const struct json *memory = json_get(snapshot->manifest, "memory");

	if (!part)
		return snapshot_memory_key(snapshot) ? memory : NULL;
	return part == memory ? json_first(json_get(memory, "shared")) : part->next;
}

int snapshot_open_memory(const struct snapshot *snapshot, const struct json *part, struct problem *problem)
{
	const char *name = json_string(json_get(part, "file"));
	long long size = json_integer(json_get(part, "size"), -1);
	int fd = openat(snapshot->directory, name, O_RDONLY | O_CLOEXEC);
	struct stat status;

	if (fd < 0)
		return problem_set(problem, SNAPSHOT_UNUSABLE,
				   "%s/%s, the memory of the snapshot, cannot be opened: %s; make the snapshot anew",
				   snapshot->path, name, strerror(errno));
	/* criu would not notice (criu/files-reg.c, open_path). */
	if (fstat(fd, &status) || status.st_size != size) {
		problem_set(problem, SNAPSHOT_UNUSABLE, "%s/%s has not the %lld bytes that the snapshot was made with; "
			    "make the snapshot anew", snapshot->path, name, size);
		close(fd);
		return -1;
	}
	return fd;
}
