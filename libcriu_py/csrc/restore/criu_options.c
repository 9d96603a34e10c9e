/* The options of a restore, and the descriptors that criu gives the copy for those of the dump. */
#define _GNU_SOURCE
#include "restore/criu_options.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "restore/scratch.h"

#define LOG_LEVEL 2 /* warnings: hints need some of them */

/* Exported by libcriu, and not declared in criu.h up to 4.3. */
void criu_local_set_unprivileged(criu_opts *opts, bool unprivileged);

static void inherit(struct inherited *inherited, int fd, const char *key)
{
	inherited->fds[inherited->count] = fd;
	inherited->keys[inherited->count++] = key;
}

/* Options of the dump that criu is told again (_ALSO_ON_RESTORE of libcriu_py/dump/engine.py). */
static const struct {
	const char *name;
	void (*set)(criu_opts *opts, bool value);
} switches[] = {
	{ "unprivileged", criu_local_set_unprivileged },
	{ "tcp_established", criu_local_set_tcp_established },
	{ "tcp_close", criu_local_set_tcp_close },
	{ "file_locks", criu_local_set_file_locks },
	{ "ext_unix_sk", criu_local_set_ext_unix_sk },
	{ "skip_file_rwx_check", criu_local_set_skip_file_rwx_check },
	{ "weak_sysctls", criu_local_set_weak_sysctls },
	{ "orphan_pts_master", criu_local_set_orphan_pts_master },
	{ "ext_sharing", criu_local_set_ext_sharing },
	{ "ext_masters", criu_local_set_ext_masters },
};

static int set_recorded(criu_opts *opts, const struct snapshot *snapshot, struct problem *problem)
{
	record_for_each(struct record_option, option, snapshot->record, snapshot->facts->options) {
		const char *name = snapshot_text(snapshot, option->name);
		size_t i = 0, count = sizeof(switches) / sizeof(*switches);

		while (i < count && strcmp(switches[i].name, name))
			i++;
		if (i < count)
			switches[i].set(opts, option->value != 0);
		else if (!strcmp(name, "cpu_cap"))
			criu_local_set_cpu_cap(opts, option->value);
		else
			return lcp_unusable(problem, "the snapshot has the restore option %s, which this "
					       "version of libcriu_py does not know; make the snapshot anew", name);
	}
	return 0;
}

int lcp_make_options(criu_opts **opts, const char *criu, const struct inherited *inherited, int images,
		     const struct snapshot *snapshot, struct problem *problem)
{
	int result = 0;

	*opts = NULL;
	if (criu_local_init_opts(opts) || criu_local_set_service_binary(*opts, criu) ||
	    criu_local_set_log_file(*opts, WORK_LOG))
		return lcp_failed(problem, "no memory is left");
	criu_local_set_images_dir_fd(*opts, images);
	criu_local_set_log_level(*opts, LOG_LEVEL);
	criu_local_set_unprivileged(*opts, true);
	criu_local_set_shell_job(*opts, true);
	for (int i = 0; i < inherited->count && !result; i++)
		result = criu_local_add_inherit_fd(*opts, inherited->fds[i], inherited->keys[i]);
	if (result)
		return lcp_failed(problem, "no memory is left");
	return set_recorded(*opts, snapshot, problem);
}

/* ---- streams ---------------------------------------------------------- */

/* A descriptor above 2, which is what criu wants of those it inherits. */
static int stream(int number)
{
	return lcp_is_closed(number) ? open("/dev/null", O_RDWR | O_CLOEXEC) : fcntl(number, F_DUPFD_CLOEXEC, 3);
}

int lcp_open_inherited(struct inherited *inherited, const struct snapshot *snapshot, int slot, struct problem *problem)
{
	static const char *const names[] = { "stdin", "stdout", "stderr" };
	const struct record_facts *facts = snapshot->facts;
	int fd;

	inherited->count = 0;
	for (int i = 0; i < 3; i++) {
		fd = stream(i);
		if (fd < 0)
			return lcp_failed(problem, "%s cannot be duplicated: %s", names[i],
					       strerror(errno));
		inherit(inherited, fd, snapshot_text(snapshot, facts->slots[i]));
	}
	inherit(inherited, slot, snapshot_text(snapshot, facts->slots[SLOT_REQUEST]));
	fd = openat(snapshot->directory, "images", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return lcp_failed(problem, "%s/images cannot be opened: %s", snapshot->path,
				       strerror(errno));
	inherit(inherited, fd, snapshot_text(snapshot, facts->images_key));
	record_for_each(struct record_memory, part, snapshot->record, facts->memory) {
		fd = lcp_snapshot_open_memory(snapshot, part, problem);
		if (fd < 0)
			return -1;
		inherit(inherited, fd, snapshot_text(snapshot, part->key));
	}
	return 0;
}

void lcp_close_inherited(struct inherited *inherited)
{
	while (inherited->count)
		close(inherited->fds[--inherited->count]);
}
