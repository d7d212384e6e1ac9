/* Hides AVX512 and AMX from code whose cpuid instructions (0f a2) were replaced by int3, nop: at each of them the handler
 * below runs cpuid itself and clears the bits of those instruction sets. With -DHIDE_AVX_VNNI those of AVX-VNNI too.
 * Loaded into a process before the code in question; see isa_limit.py. Linux on x86-64.
 * Bits: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, CPUID, leaf 7. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

#define BIT(n) (UINT32_C(1) << (n))

enum { EXTENDED_FEATURES = 7 };
/* sub-leaf 0 */
#define AVX512_EBX (BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31))
#define AVX512_ECX (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
#define AVX512_AMX_EDX (BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25))
/* sub-leaf 1 */
#define AVX512_BF16_EAX BIT(5)
#define AVX_VNNI_EAX BIT(4)
#define AVX_VNNI_EDX (BIT(4) | BIT(5) | BIT(10)) /* of 8 bits, conversions of bfloat16, of 16 bits */

static void emulate_cpuid(int signal, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
  uint32_t a, b, c, d;
  (void)signal;
  (void)info;
  __cpuid_count(leaf, subleaf, a, b, c, d);
  if (leaf == EXTENDED_FEATURES && subleaf == 0) {
    b &= ~AVX512_EBX;
    c &= ~AVX512_ECX;
    d &= ~AVX512_AMX_EDX;
  }
  if (leaf == EXTENDED_FEATURES && subleaf == 1) {
    a &= ~AVX512_BF16_EAX;
#ifdef HIDE_AVX_VNNI
    a &= ~AVX_VNNI_EAX;
    d &= ~AVX_VNNI_EDX;
#endif
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
}

__attribute__((constructor)) static void install(void) {
  struct sigaction action = {0};
  action.sa_sigaction = emulate_cpuid;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGTRAP, &action, 0);
}
