/* Semihosting: files and exit through the debugger or emulator, for test programs on Cortex-M. */
#ifndef QCC_CORTEX_M_SEMIHOSTING_H
#define QCC_CORTEX_M_SEMIHOSTING_H

#include <stdint.h>

enum { SEMIHOST_OPEN = 0x01, SEMIHOST_CLOSE = 0x02, SEMIHOST_WRITE = 0x05, SEMIHOST_READ = 0x06, SEMIHOST_EXIT = 0x20 };

static inline int32_t semihost(int32_t operation, const void *arguments) {
  register int32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

/* mode: 1 to read, 5 to write, in binary. Returns a handle, or -1. */
static inline int32_t file_open(const char *name, int32_t length, int32_t mode) {
  const uintptr_t block[3] = {(uintptr_t)name, (uintptr_t)mode, (uintptr_t)length};
  return semihost(SEMIHOST_OPEN, block);
}

static inline int32_t file_close(int32_t handle) {
  const uintptr_t block[1] = {(uintptr_t)handle};
  return semihost(SEMIHOST_CLOSE, block);
}

/* Both return the number of bytes left undone. */
static inline int32_t file_read(int32_t handle, void *data, int32_t count) {
  const uintptr_t block[3] = {(uintptr_t)handle, (uintptr_t)data, (uintptr_t)count};
  return semihost(SEMIHOST_READ, block);
}

static inline int32_t file_write(int32_t handle, const void *data, int32_t count) {
  const uintptr_t block[3] = {(uintptr_t)handle, (uintptr_t)data, (uintptr_t)count};
  return semihost(SEMIHOST_WRITE, block);
}

/* The exit status of the emulator becomes `status`. */
static inline void program_exit(int32_t status) {
  const uintptr_t block[2] = {0x20026u, (uintptr_t)status};
  for (;;) {
    (void)semihost(SEMIHOST_EXIT, block);
  }
}

#endif
