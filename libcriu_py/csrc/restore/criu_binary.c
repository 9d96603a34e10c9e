#define _GNU_SOURCE
#include "restore/criu_binary.h"

#include <dirent.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "restore/problem.h"
#include "restore/tree.h"

#ifndef LCP_PREFIX
#define LCP_PREFIX ""
#endif

/* Where `libcriu-py setup` puts the criu with file capabilities. */
#define CAPABLE_CRIU "/usr/local/lib/libcriu_py/criu"

static int is_executable(const char *path)
{
	struct stat status;

	return !stat(path, &status) && S_ISREG(status.st_mode) && !access(path, X_OK);
}

/* Find an executable in a directory, by its absolute path. */
static int find_any(char found[PATH_MAX], const char *directory, size_t length, const char *name)
{
	size_t base = 0;

	if (length >= PATH_MAX)
		return 0;
	if ((length ? *directory : *name) != '/') {
		if (!getcwd(found, PATH_MAX - 1))
			return 0;
		base = strlen(found);
		found[base++] = '/';
	}
	return (size_t)snprintf(found + base, PATH_MAX - base, "%.*s%s", (int)length, directory, name) <
		       PATH_MAX - base &&
	       is_executable(found);
}

/* Why root passed over the first criu that another user could change; empty where there was none. */
static struct problem passed_over;

/* The same, but root takes no program that another user could change. */
static int find(char found[PATH_MAX], const char *directory, size_t length, const char *name)
{
	struct problem danger;

	if (!find_any(found, directory, length, name))
		return 0;
	if (!lcp_tree_refuse_program(found, &danger))
		return 1;
	if (!*passed_over.text)
		passed_over = danger;
	return 0;
}

/* Find one that was named, with a warning where another user could change it. */
static int find_named(char found[PATH_MAX], const char *directory, const char *name)
{
	struct problem danger;

	if (!find_any(found, directory, strlen(directory), name))
		return 0;
	if (lcp_tree_refuse_program(found, &danger))
		fprintf(stderr, "libcriu-py: root runs a criu that others can change: %s\n", danger.text);
	return 1;
}

static int in_prefix(char found[PATH_MAX], const char *prefix, const char *name)
{
	return prefix && *prefix && find(found, prefix, strlen(prefix), name);
}

static const char *home(void)
{
	const char *home = getenv("HOME");
	struct passwd *entry = NULL;
	AUTO_FCLOSE FILE *accounts = NULL;

	if (home)
		return home;
	accounts = fopen("/etc/passwd", "re");
	while (accounts && (entry = fgetpwent(accounts)) && entry->pw_uid != getuid())
		;
	return entry ? entry->pw_dir : NULL;
}

/* In the distribution libcriu-py-criu, in one directory of Python packages. */
#define PACKAGED "libcriu_py_criu/bin/criu"

static int in_packages(char found[PATH_MAX], const char *libraries)
{
	AUTO_CLOSEDIR DIR *versions = opendir(libraries);
	struct dirent *version;
	char name[sizeof(version->d_name) + 64];

	while (versions && (version = readdir(versions)))
		if (!strncmp(version->d_name, "python3", 7))
			for (int i = 0; i < 2; i++) {
				snprintf(name, sizeof(name), "/%s/%s-packages/" PACKAGED, version->d_name,
					 i ? "dist" : "site"); /* Debian's name, for packages outside environments */
				if (find(found, libraries, strlen(libraries), name))
					return 1;
			}
	return 0;
}

/* Find the packaged criu beside the package that this launcher is in, or in those of the bin directory that it is in. */
static int beside(char found[PATH_MAX])
{
	char own[PATH_MAX];
	ssize_t size = readlink("/proc/self/exe", own, sizeof(own) - sizeof("/lib64"));

	for (int i = 0; i < 2; i++) { /* the file's name, and bin */
		while (size > 0 && own[--size] != '/')
			;
		if (size <= 0)
			return 0;
	}
	own[size] = '\0';
	if (!strcmp(strrchr(own, '/'), "/libcriu_py"))
		return find(found, own, (size_t)size - strlen("libcriu_py"), PACKAGED);
	strcpy(own + size, "/lib");
	if (in_packages(found, own))
		return 1;
	strcpy(own + size, "/lib64");
	return in_packages(found, own);
}

static int on_path(char found[PATH_MAX], const char *path)
{
	if (!path)
		path = "/bin:/usr/bin";
	while (*path) {
		size_t length = strcspn(path, ":");

		if (length && find(found, path, length, "/criu"))
			return 1;
		path += length + (path[length] == ':');
	}
	return 0;
}

int lcp_find_criu(char found[PATH_MAX], struct problem *problem)
{
	const char *named = getenv("LIBCRIU_PY_CRIU"), *data = getenv("XDG_DATA_HOME"), *prefix = getenv("LIBCRIU_PY_PREFIX");

	if (named && *named) {
		if (find_named(found, "", named))
			return 0;
		return lcp_failed(problem, "LIBCRIU_PY_CRIU=%s is not an executable file", named);
	}
	if ((prefix && *prefix && find_named(found, prefix, "/sbin/criu")) || in_prefix(found, LCP_PREFIX, "/sbin/criu") ||
	    (data && *data ? in_prefix(found, data, "/libcriu_py/criu/sbin/criu") :
			     in_prefix(found, home(), "/.local/share/libcriu_py/criu/sbin/criu")) ||
	    beside(found) || on_path(found, getenv("PATH")) || find(found, "", 0, "/usr/sbin/criu") || find(found, "", 0,
											   "/usr/local/sbin/criu"))
		return 0;
	if (*passed_over.text)
		return lcp_failed(problem, "there is no criu program that root could trust: %s, and root would run that user's "
				  "program; name it in LIBCRIU_PY_CRIU", passed_over.text);
	return lcp_failed(problem, "there is no criu program here: install it with pip install "
			       "'libcriu-py[criu]', or name it in LIBCRIU_PY_CRIU");
}

uint64_t lcp_file_capabilities(const char *program)
{
	/* struct vfs_cap_data, include/uapi/linux/capability.h: magic, then (permitted, inheritable) words. */
	uint32_t data[6] = { 0 };

	if (getxattr(program, "security.capability", data, sizeof(data)) < 0)
		return 0;
	return data[1] | (uint64_t)data[3] << 32;
}

const char *lcp_capable_criu(const char *criu)
{
	uint64_t wanted = capability_bit(CAPABILITY_CHECKPOINT_RESTORE) | capability_bit(CAPABILITY_SYS_ADMIN);

	return !(lcp_file_capabilities(criu) & wanted) && lcp_file_capabilities(CAPABLE_CRIU) & wanted ? CAPABLE_CRIU
												       : criu;
}
