#include "tests/adapters/fault_vfs.h"

#include <sqlite3.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace lorikeet::testing {
namespace {

std::atomic<FaultVfs::Fault> g_fault{FaultVfs::Fault::kFailOnce};
std::atomic<int64_t> g_at{FaultVfs::kNever};
std::atomic<int64_t> g_count{0};
sqlite3_vfs* g_base = nullptr;

// The file of the real VFS lies behind ours.
struct File {
  sqlite3_file base;
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

sqlite3_file* Real(sqlite3_file* f) {
  return reinterpret_cast<File*>(f)->real();
}

bool Fails() {
  const int64_t index = g_count++;
  const int64_t at = g_at;
  if (at == FaultVfs::kNever || index < at) return false;
  if (index > at && g_fault == FaultVfs::Fault::kFailOnce) return false;
  if (g_fault == FaultVfs::Fault::kExit) ::_exit(FaultVfs::kExitStatus);
  return true;
}

int Close(sqlite3_file* f) { return Real(f)->pMethods->xClose(Real(f)); }
int Read(sqlite3_file* f, void* to, int n, sqlite3_int64 at) {
  return Real(f)->pMethods->xRead(Real(f), to, n, at);
}
int Write(sqlite3_file* f, const void* from, int n, sqlite3_int64 at) {
  if (Fails()) return SQLITE_FULL;
  return Real(f)->pMethods->xWrite(Real(f), from, n, at);
}
int Truncate(sqlite3_file* f, sqlite3_int64 size) {
  if (Fails()) return SQLITE_IOERR_TRUNCATE;
  return Real(f)->pMethods->xTruncate(Real(f), size);
}
int Sync(sqlite3_file* f, int flags) {
  if (Fails()) return SQLITE_IOERR_FSYNC;
  return Real(f)->pMethods->xSync(Real(f), flags);
}
int FileSize(sqlite3_file* f, sqlite3_int64* size) {
  return Real(f)->pMethods->xFileSize(Real(f), size);
}
int Lock(sqlite3_file* f, int level) {
  return Real(f)->pMethods->xLock(Real(f), level);
}
int Unlock(sqlite3_file* f, int level) {
  return Real(f)->pMethods->xUnlock(Real(f), level);
}
int CheckReservedLock(sqlite3_file* f, int* out) {
  return Real(f)->pMethods->xCheckReservedLock(Real(f), out);
}
int FileControl(sqlite3_file* f, int op, void* arg) {
  return Real(f)->pMethods->xFileControl(Real(f), op, arg);
}
int SectorSize(sqlite3_file* f) {
  return Real(f)->pMethods->xSectorSize(Real(f));
}
int Characteristics(sqlite3_file* f) {
  return Real(f)->pMethods->xDeviceCharacteristics(Real(f));
}
int ShmMap(sqlite3_file* f, int region, int size, int extend,
           void volatile** out) {
  return Real(f)->pMethods->xShmMap(Real(f), region, size, extend, out);
}
int ShmLock(sqlite3_file* f, int offset, int n, int flags) {
  return Real(f)->pMethods->xShmLock(Real(f), offset, n, flags);
}
void ShmBarrier(sqlite3_file* f) { Real(f)->pMethods->xShmBarrier(Real(f)); }
int ShmUnmap(sqlite3_file* f, int remove) {
  return Real(f)->pMethods->xShmUnmap(Real(f), remove);
}

const sqlite3_io_methods kMethods = {
    /*iVersion=*/2,
    Close,
    Read,
    Write,
    Truncate,
    Sync,
    FileSize,
    Lock,
    Unlock,
    CheckReservedLock,
    FileControl,
    SectorSize,
    Characteristics,
    ShmMap,
    ShmLock,
    ShmBarrier,
    ShmUnmap,
    nullptr,
    nullptr};

int Open(sqlite3_vfs*, const char* name, sqlite3_file* f, int flags,
         int* out_flags) {
  File* file = new (f) File();
  file->base.pMethods = nullptr;
  const int rc = g_base->xOpen(g_base, name, file->real(), flags, out_flags);
  if (rc == SQLITE_OK) file->base.pMethods = &kMethods;
  return rc;
}

}  // namespace

void FaultVfs::Install() {
  static sqlite3_vfs vfs;
  if (g_base != nullptr) return;
  g_base = sqlite3_vfs_find(nullptr);
  vfs = *g_base;
  vfs.zName = "fault";
  vfs.pNext = nullptr;
  vfs.szOsFile = static_cast<int>(sizeof(File)) + g_base->szOsFile;
  vfs.xOpen = Open;
  sqlite3_vfs_register(&vfs, /*makeDflt=*/1);
}

void FaultVfs::Arm(Fault fault, int64_t at) {
  g_fault = fault;
  g_at = at;
  g_count = 0;
}

int64_t FaultVfs::count() { return g_count; }

}  // namespace lorikeet::testing
