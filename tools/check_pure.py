#!/usr/bin/env python3
"""Proves that the core does no I/O: its object files ask the linker for no clock, socket, file, thread,
process or random symbol, and its sources use no container whose order differs from run to run.

    tools/check_pure.py build/release     check the object files below that folder; exit status 1 if any fails
    tools/check_pure.py --self-test       compile a few one-line programs and show that each is caught

Every source file of the core must have an object file there, so that a file left out of the build
cannot pass by being absent.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

# The rooms up to rank 6 (tools/room_ranks.json). http, cli and server speak to the world and are not here.
PURE_ROOMS = ["base", "env", "events", "ownership", "journal", "runtime", "state", "propagation", "transactions",
              "liveness", "reconcile", "arbitration", "domains", "operations", "orchestrator", "worker"]

# The parts of those rooms that are the edge to the world, and what is linked into tests only.
EDGE = [
    re.compile(r"src/env/real/"),
    re.compile(r"src/journal/sqlite[^/]*$"),
    re.compile(r"src/runtime/driver[^/]*$"),
    re.compile(r"src/worker/real/"),
    re.compile(r"_test\.cc$"),
]

# Kind -> symbols of the C library, whole names. Variants (open64, __open_2, __read_chk, ...) are folded first.
C_SYMBOLS = {
    "clock": "clock clock_gettime clock_getres gettimeofday time times timespec_get ftime localtime localtime_r "
             "mktime tzset timer_create timer_settime timerfd_create timerfd_settime setitimer alarm",
    "sleep": "sleep usleep nanosleep clock_nanosleep pause",
    "socket": "socket socketpair connect bind listen accept accept4 shutdown send sendto sendmsg sendmmsg recv "
              "recvfrom recvmsg recvmmsg getsockopt setsockopt getaddrinfo epoll_create epoll_create1 epoll_ctl "
              "epoll_wait epoll_pwait poll ppoll select pselect eventfd",
    "file": "open openat creat close fopen fdopen freopen read pread readv write pwrite writev lseek fsync "
            "fdatasync ftruncate truncate fallocate posix_fallocate stat fstat lstat unlink rename renameat "
            "mkdir rmdir opendir readdir mmap munmap msync memfd_create shm_open fcntl ioctl sendfile pipe pipe2 "
            "tmpfile mkstemp dlopen",
    "thread": "thrd_create mtx_lock cnd_wait syscall sched_yield",
    "process": "fork vfork execv execve execvp execl posix_spawn posix_spawnp system popen kill waitpid waitid "
               "signal sigaction",
    "random": "rand rand_r srand random srandom drand48 lrand48 getrandom getentropy arc4random arc4random_buf "
              "arc4random_uniform RAND_bytes RAND_priv_bytes",
    "environment": "getenv secure_getenv setenv gethostname getpid",
}

# Kind -> what a mangled C or C++ name may not contain.
PATTERNS = {
    "clock": r"(system_clock|steady_clock|high_resolution_clock|file_clock)3nowE|chrono.*(get_tzdb|current_zone)",
    "thread": r"^_*pthread_(?!key_create$)|^_Z.*St6thread(?:\d|C|D|E)|^_ZN?K?St18condition_variable|"
              r"^_ZN?K?St(?:V2|3_V2)22condition_variable_any|^_ZNSt11this_thread|^_ZNSt6__future|"
              r"^_ZNSt13__future_base|_ZSt25notify_all_at_thread_exit",
    "file": r"^_ZN.*(?:13basic_filebuf|14basic_ifstream|14basic_ofstream|13basic_fstream)|10filesystem",
    "random": r"13random_device",
}

HASHED = re.compile(r"^\s*#\s*include\s*<(unordered_map|unordered_set)>")


def compile_rules():
    rules = {}
    for kind, names in C_SYMBOLS.items():
        for name in names.split():
            rules[name] = kind
    patterns = [(kind, re.compile(pattern)) for kind, pattern in PATTERNS.items()]
    return rules, patterns


RULES, RULE_PATTERNS = compile_rules()


def fold(symbol):
    """The plain name behind a versioned, 64-bit or fortified one."""
    symbol = symbol.split("@")[0]
    name = re.sub(r"^_+", "", symbol)
    name = re.sub(r"(_chk|_2|_alias|_nocancel)$", "", name)
    return re.sub(r"(?<=[a-z])64(?:_time64)?$", "", name)


def kind_of(symbol):
    """Which kind of forbidden thing an undefined symbol is, or None."""
    plain = symbol.split("@")[0]
    if not plain.startswith("_Z"):
        kind = RULES.get(plain) or RULES.get(fold(plain))
        if kind:
            return kind
    for kind, pattern in RULE_PATTERNS:
        if pattern.search(plain):
            return kind
    return None


def undefined_symbols(objects):
    """Object file -> its undefined symbols. One run of nm for many files."""
    result = {}
    objects = [str(path) for path in objects]
    for start in range(0, len(objects), 200):
        batch = objects[start:start + 200]
        output = subprocess.run(["nm", "--undefined-only", "--print-file-name", "--format=posix", *batch],
                                check=True, capture_output=True, text=True).stdout
        for name in batch:
            result[name] = []
        for line in output.splitlines():
            name, _, rest = line.rpartition(": ")
            if name in result and rest:
                result[name].append(rest.split()[0])
    return result


def demangle(symbol):
    try:
        return subprocess.run(["c++filt", symbol], check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return symbol


def is_core(source):
    """Whether a path (from the top of the tree) belongs to the part that must be pure."""
    parts = source.split("/")
    return (len(parts) > 2 and parts[0] == "src" and parts[1] in PURE_ROOMS
            and not any(edge.search(source) for edge in EDGE))


def source_of(build, path):
    """The source path behind <folder>/CMakeFiles/<target>.dir/<rest>.o, from the top of the tree, or None."""
    relative = path.relative_to(build).as_posix()
    found = re.match(r"(?:(.*)/)?CMakeFiles/[^/]+\.dir/(.*)\.o$", relative)
    if not found:
        return None
    parts = []
    for part in PurePosixPath(found.group(1) or "", found.group(2)).parts:
        if part == "__":  # CMake's word for the parent folder
            if parts:
                parts.pop()
        else:
            parts.append(part)
    source = "/".join(parts)
    if source.startswith("src/"):
        return source
    # An absolute source path is kept whole below the target's folder.
    return "src/" + source.split("/src/", 1)[1] if "/src/" in source else source


def check_objects(root, build, minimum):
    problems = []
    objects = {}
    for path in sorted(build.rglob("*.o")):
        source = source_of(build, path)
        if source and is_core(source):
            objects[path] = source

    sources = {path.relative_to(root).as_posix() for path in (root / "src").rglob("*.cc")}
    for source in sorted(source for source in sources if is_core(source)):
        if source not in objects.values():
            problems.append(f"{source}:1: no object file of it below {build}: not part of the build, or not built")

    current = {path: source for path, source in objects.items() if source in sources}  # not those of removed files
    if len(current) < minimum:
        problems.append(f"{build}: only {len(current)} object files of the core found, at least {minimum} expected")

    for path, source in current.items():
        if b"__gnu_lto_slim" in path.read_bytes():
            problems.append(f"{source}:1: its object file holds only link-time code and tells nothing; "
                            "build with -ffat-lto-objects")
    for path, symbols in undefined_symbols(current).items():
        source = objects[Path(path)]
        for symbol in sorted(set(symbols)):
            kind = kind_of(symbol)
            if kind:
                problems.append(f"{source}:1: asks for a {kind} symbol: {demangle(symbol)}")
    return len(current), problems


def check_sources(root):
    problems = []
    for path in sorted((root / "src").rglob("*")):
        source = path.relative_to(root).as_posix()
        if path.suffix not in {".h", ".cc"} or not is_core(source):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            found = HASHED.match(line)
            if found:
                problems.append(f"{source}:{number}: <{found.group(1)}>: its order differs from run to run; "
                                "use std::map or a sorted vector")
    return problems


# ---- self-test --------------------------------------------------------------------------------------------

# what -> (program, kind that must be found, or None)
PROGRAMS = {
    "clock_gettime": ("#include <ctime>\nlong f() { timespec t; clock_gettime(CLOCK_REALTIME, &t); "
                      "return t.tv_sec; }\n", "clock"),
    "time": ("#include <ctime>\nlong f() { return time(nullptr); }\n", "clock"),
    "steady_clock": ("#include <chrono>\nlong f() { return "
                     "std::chrono::steady_clock::now().time_since_epoch().count(); }\n", "clock"),
    "socket": ("#include <sys/socket.h>\nint f() { return socket(1, 1, 0); }\n", "socket"),
    "recv": ("#include <sys/socket.h>\nlong f(char* b, unsigned long n) { return recv(0, b, n, 0); }\n", "socket"),
    "epoll": ("#include <sys/epoll.h>\nint f() { return epoll_create1(0); }\n", "socket"),
    "open": ("#include <fcntl.h>\nint f(const char* p) { return open(p, O_RDONLY); }\n", "file"),
    "open64": ("#define _FILE_OFFSET_BITS 64\n#include <fcntl.h>\nint f(const char* p) "
               "{ return open(p, O_RDONLY); }\n", "file"),
    "read, fortified": ("#include <unistd.h>\nlong f(unsigned long n) { char b[8]; long r = read(0, b, n); "
                        "return r + b[0]; }\n", "file"),
    "ifstream": ("#include <fstream>\nbool f() { return std::ifstream(\"x\").good(); }\n", "file"),
    "filesystem": ("#include <filesystem>\nbool f() { return std::filesystem::exists(\"x\"); }\n", "file"),
    "memfd_create": ("#include <sys/mman.h>\nint f() { return memfd_create(\"x\", 0); }\n", "file"),
    "thread": ("#include <thread>\nvoid f() { std::thread([] {}).join(); }\n", "thread"),
    "mutex": ("#include <mutex>\nstd::mutex m; void f() { m.lock(); }\n", "thread"),
    "condition_variable": ("#include <condition_variable>\nvoid f(std::condition_variable& c) "
                           "{ c.notify_one(); }\n", "thread"),
    "sleep_for": ("#include <thread>\nvoid f() { std::this_thread::sleep_for(std::chrono::seconds(1)); }\n",
                  "sleep"),
    "random_device": ("#include <random>\nunsigned f() { return std::random_device{}(); }\n", "random"),
    "rand": ("#include <cstdlib>\nint f() { return rand(); }\n", "random"),
    "getenv": ("#include <cstdlib>\nconst char* f() { return getenv(\"x\"); }\n", "environment"),
    "kill": ("#include <csignal>\nint f() { return kill(1, 0); }\n", "process"),
    "containers": ("#include <map>\n#include <memory>\n#include <string>\n#include <vector>\n#include <variant>\n"
                   "#include <algorithm>\n#include <functional>\n#include <chrono>\n#include <stdexcept>\n"
                   "std::string f(std::map<int, std::string> m, std::vector<std::shared_ptr<int>> v, "
                   "std::function<int()> g) { std::sort(v.begin(), v.end()); m[g()] += std::to_string(*v.at(0)); "
                   "return m[2]; }\n", None),
    "own names": ("namespace lockstep { int read(int); int time(int); int open(const char*); int select(); }\n"
                  "int f() { return lockstep::read(1) + lockstep::time(2) + lockstep::open(\"\") "
                  "+ lockstep::select(); }\n", None),
}


def self_test():
    failures = []
    cases = 0

    def expect(condition, text):
        nonlocal cases
        cases += 1
        if not condition:
            failures.append(text)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        room = root / "src" / "base"
        build = root / "build" / "release"
        objects = build / "CMakeFiles" / "lockstep_base.dir" / "src" / "base"
        room.mkdir(parents=True)
        objects.mkdir(parents=True)
        for index, (what, (program, kind)) in enumerate(PROGRAMS.items()):
            source = room / f"p{index}.cc"
            source.write_text(program)
            subprocess.run(["c++", "-std=c++20", "-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-c", str(source),
                            "-o", str(objects / f"p{index}.cc.o")], check=True)
        count, problems = check_objects(root, build, len(PROGRAMS))
        expect(count == len(PROGRAMS), f"{count} of {len(PROGRAMS)} object files found")
        for index, (what, (_, kind)) in enumerate(PROGRAMS.items()):
            mine = [problem for problem in problems if f"/p{index}.cc:" in problem]
            if kind is None:
                expect(not mine, f"{what} is harmless, yet: {mine}")
            else:
                expect(any(f"a {kind} symbol" in problem for problem in mine), f"{what} was not caught: {mine}")

        _, problems = check_objects(root, build, len(PROGRAMS) + 1)
        expect(any("at least" in problem for problem in problems), "too few object files were not noticed")
        (room / "unbuilt.cc").write_text("int f();\n")
        _, problems = check_objects(root, build, 1)
        expect(any("unbuilt.cc" in problem for problem in problems), "a source without an object file passed")

        subprocess.run(["c++", "-O2", "-flto", "-fno-fat-lto-objects", "-c", str(room / "unbuilt.cc"),
                        "-o", str(objects / "unbuilt.cc.o")], check=True)
        _, problems = check_objects(root, build, 1)
        expect(any("link-time code" in problem for problem in problems), "an object file without symbols passed")

        (room / "table.h").write_text("#include <map>\n#include <unordered_map>\n")
        problems = check_sources(root)
        expect(any("table.h:2" in problem for problem in problems), "an unordered container passed")

    layouts = {
        "CMakeFiles/lockstep_base.dir/src/base/text.cc.o": "src/base/text.cc",
        "src/CMakeFiles/lockstep_base.dir/base/text.cc.o": "src/base/text.cc",
        "src/domains/memory/CMakeFiles/m.dir/rules.cc.o": "src/domains/memory/rules.cc",
        "tests/CMakeFiles/t.dir/__/src/base/text_test.cc.o": "src/base/text_test.cc",
    }
    for path, source in layouts.items():
        found = source_of(Path("b"), Path("b") / path)
        expect(found == source, f"{path} was read as {found}")
    for source, core in {"src/base/text.cc": True, "src/env/real/loop.cc": False, "src/journal/sqlite_store.cc": False,
                         "src/runtime/driver.cc": False, "src/runtime/loop.cc": True, "src/http/server.cc": False,
                         "src/worker/real/main.cc": False, "src/base/text_test.cc": False,
                         "src/domains/memory/rules.cc": True}.items():
        expect(is_core(source) == core, f"{source} should {'' if core else 'not '}be checked")

    for failure in failures:
        print(f"self-test: {failure}")
    print(f"check_pure self-test: {cases - len(failures)} of {cases} cases as expected")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", type=Path, help="the build folder, e.g. build/release")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--min", type=int, default=10, help="fail below this number of object files (10)")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()

    if arguments.self_test:
        return self_test()
    if arguments.build is None:
        parser.error("name the build folder")
    count, problems = check_objects(arguments.root.resolve(), arguments.build.resolve(), arguments.min)
    problems += check_sources(arguments.root.resolve())
    for problem in problems:
        print(problem)
    print(f"check_pure: {count} object files of the core, {len(problems)} violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
