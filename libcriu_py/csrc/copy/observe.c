/*
 * Observing a restored process: which pages it has written to, and the moment of its end, at which its memory is
 * still there.
 */
#define _GNU_SOURCE
#include "copy/observe.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "copy/pages.h"

#define ENTRIES 8192

int lcp_written_pages(int pagemap, uint64_t first, size_t count, unsigned char *written)
{
	AUTO_FREE uint64_t *entries = malloc(ENTRIES * sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	for (size_t done = 0; done < count;) {
		size_t wanted = count - done < ENTRIES ? count - done : ENTRIES;
		ssize_t size =
			pread(pagemap, entries, wanted * sizeof(*entries), (off_t)((first + done) * sizeof(*entries)));

		if (size <= 0)
			return size < 0 ? -errno : 0; /* it has ended, and has no memory */
		for (size_t i = 0; i < (size_t)size / sizeof(*entries); i++)
			/* Of a private mapping, a page that is not the file's own has been written to. */
			if (entries[i] & (PAGE_PRESENT | PAGE_SWAPPED) && !(entries[i] & PAGE_OF_FILE))
				written[done + i] = 1;
		done += (size_t)size / sizeof(*entries);
	}
	return 0;
}

int lcp_observe(int pid)
{
	return ptrace(PTRACE_SEIZE, pid, NULL, (void *)PTRACE_O_TRACEEXIT) ? -errno : 0;
}

int lcp_is_ending(int pid)
{
	int status, result;

	while ((result = waitpid(pid, &status, __WALL | WNOHANG)) > 0) {
		if (!WIFSTOPPED(status))
			return -ESRCH; /* killed, and without any memory */
		if (status >> 16 == PTRACE_EVENT_EXIT)
			return 1;
		if (status >> 16 == PTRACE_EVENT_STOP)
			ptrace(PTRACE_LISTEN, pid, NULL, NULL); /* it is stopped, as by Ctrl-Z */
		else
			ptrace(PTRACE_CONT, pid, NULL, (void *)(long)(status >> 16 ? 0 : WSTOPSIG(status)));
	}
	return result < 0 ? -errno : 0;
}

int lcp_stop_observing(int pid)
{
	return ptrace(PTRACE_DETACH, pid, NULL, NULL) ? -errno : 0;
}
