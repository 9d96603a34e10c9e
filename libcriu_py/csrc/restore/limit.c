#include "restore/limit.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "common/process.h"
#include "restore/record.h"
#include "restore/snapshot.h"
#include "supervise/restoring.h"

#define VARIABLE "LIBCRIU_PY_CRIU_LIMIT"
#define DEFAULT_S 30 /* as in libcriu_py/settings.py */
#define GB 1000000000u

int lcp_restore_limit(const struct snapshot *snapshot)
{
	const char *text = getenv(VARIABLE);
	double seconds = text && *text ? strtod(text, NULL) : DEFAULT_S, limit;
	uint64_t size = 0;

	record_for_each(struct record_file, file, snapshot->record, snapshot->facts->files)
		size += file->size;
	limit = (seconds > 0 ? seconds : DEFAULT_S) * 1000 * (double)(size / GB + 1);
	return limit < INT_MAX ? (int)limit : INT_MAX;
}

static int was_reaper; /* which the program, if it is started conventionally, stays */

void lcp_orphans_begin(void)
{
	prctl(PR_GET_CHILD_SUBREAPER, &was_reaper);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void lcp_orphans_end(const struct snapshot *failed)
{
	if (failed) {
		lcp_end_child(lcp_restoring_criu());
		record_for_each(uint32_t, pid, failed->record, failed->facts->pids)
			lcp_end_child((pid_t)*pid);
	}
	prctl(PR_SET_CHILD_SUBREAPER, was_reaper);
}
