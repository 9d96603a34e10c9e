#define _GNU_SOURCE
#include "become/machine.h"

#include <sys/auxv.h>
#include <unistd.h>

#include "become/reader.h"
#include "become/vdso.h"
#include "become/why.h"

#ifdef __x86_64__

#include <cpuid.h>

#define XSAVE_LEAF 0xd
#define OSXSAVE (1u << 27)
#define FIRST_EXTENDED 2 /* the x87 and SSE components are where they always were */

/* What the kernel has enabled, which the instruction tells without a trap in a virtual machine. */
static uint64_t enabled_components(void)
{
	unsigned int eax, ebx, ecx, edx;

	if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	return (uint64_t)edx << 32 | eax;
}

/* The frames of signals hold the registers of threads as XSAVE wrote them. */
static int check_components(const struct plan_header *plan, struct why *why)
{
	uint64_t enabled = enabled_components();
	unsigned int size, offset, ecx, edx;

	if (plan->xcr0 & ~enabled)
		return lcp_why(why, "this processor lacks registers of that of the dump (XCR0 %#llx instead of %#llx); make "
			       "the snapshot on the oldest of your machines", (unsigned long long)enabled,
			       (unsigned long long)plan->xcr0);
	for (unsigned int i = FIRST_EXTENDED; i < PLAN_COMPONENTS; i++) {
		if (!(plan->xcr0 >> i & 1))
			continue;
		__cpuid_count(XSAVE_LEAF, i, size, offset, ecx, edx);
		if (plan->component[i].offset != offset || plan->component[i].size != size)
			return lcp_why(why, "this processor saves its registers elsewhere than that of the dump; make a "
				       "snapshot on a machine like this one");
	}
	return 0;
}

int lcp_machine_check(const struct plan_header *plan, struct why *why)
{
	if (getauxval(AT_SECURE))
		return lcp_why(why, "this process has more rights than who started it, which a copy must not get");
	if (sysconf(_SC_PAGESIZE) != PLAN_PAGE)
		return lcp_why(why, "pages have %ld bytes here, and %d in the snapshot", sysconf(_SC_PAGESIZE), PLAN_PAGE);
	if (plan->threads > 1 && check_components(plan, why))
		return -1;
	if (plan->in_vdso && !lcp_vdso_is_same(plan))
		return lcp_why(why, "a thread of the program was in the vdso of another kernel; make the snapshot anew");
	return 0;
}

#else

int lcp_machine_check(const struct plan_header *plan, struct why *why)
{
	(void)plan;
	return lcp_why(why, "native snapshots are for x86-64 processors");
}

#endif
