/*
 * Loaded into User-mode Linux with LD_PRELOAD.
 *
 * Before 6.16 User-mode Linux keeps a guest process's floating point state in a buffer of a size fixed when it was
 * built, and sets it with PTRACE_SETREGSET(NT_X86_XSTATE). The host accepts its own size only (xstateregs_set in
 * arch/x86/kernel/fpu/regset.c), which is larger where the processor has AMX: the guest panics with "ptrace set fp
 * regs failed". Here the state is completed with what the host has now.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* The standard format, Intel SDM volume 1 section 13.4: a 64 bit map of components lies behind the legacy region. */
#define MAP_OFFSET 512
/* More than any processor's: AMX needs 11 KiB. */
#define MAX_STATE 65536

typedef long ptrace_function(int, ...);

/* The components that end within the first `size` bytes. */
static uint64_t components_within(size_t size)
{
	uint64_t within = 3; /* x87 and SSE are in the legacy region */
	for (unsigned n = 2; n < 63; n++) {
		unsigned bytes, offset, c, d;
		if (__get_cpuid_count(0x0d, n, &bytes, &offset, &c, &d) && bytes != 0 && offset + bytes <= size)
			within |= UINT64_C(1) << n;
	}
	return within;
}

static long set_state(ptrace_function *real, long pid, void *type, const struct iovec *given)
{
	static _Thread_local char state[MAX_STATE] __attribute__((aligned(64)));
	static uint64_t within;
	struct iovec whole = { state, sizeof(state) };
	uint64_t mine, theirs;

	if (real(PTRACE_GETREGSET, pid, type, &whole) < 0)
		return -1;
	if (given->iov_len >= whole.iov_len || given->iov_len < MAP_OFFSET + sizeof(theirs))
		return real(PTRACE_SETREGSET, pid, type, given);
	if (within == 0)
		within = components_within(given->iov_len);
	memcpy(&mine, state + MAP_OFFSET, sizeof(mine));
	memcpy(state, given->iov_base, given->iov_len);
	memcpy(&theirs, state + MAP_OFFSET, sizeof(theirs));
	theirs = (theirs & within) | (mine & ~within);
	memcpy(state + MAP_OFFSET, &theirs, sizeof(theirs));
	return real(PTRACE_SETREGSET, pid, type, &whole);
}

/* Takes the place of ptrace(2) of the C library. */
long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_function *real;
	va_list arguments;
	long pid;
	void *address, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, long);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (real == NULL)
		real = (ptrace_function *)dlsym(RTLD_NEXT, "ptrace");
	if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE)
		return set_state(real, (int)pid, address, data);
	return real(request, (int)pid, address, data);
}
