# The Python binding python/lockstep/_native: built where a Python with nanobind is at hand, and put beside the
# package so that PYTHONPATH=python is all a worker needs.
set(Python_FIND_VIRTUALENV FIRST)
find_package(Python 3.10 COMPONENTS Interpreter Development.Module)
if(Python_FOUND)
  execute_process(COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir
    OUTPUT_VARIABLE nanobind_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE no_nanobind ERROR_QUIET)
endif()
if(NOT Python_FOUND OR no_nanobind)
  message(STATUS "No Python with nanobind: the binding is not built (tools/setup.sh installs it)")
  return()
endif()
find_package(nanobind CONFIG REQUIRED)
nanobind_add_module(lockstep_native NB_STATIC python/lockstep/native.cc)
set_target_properties(lockstep_native PROPERTIES OUTPUT_NAME _native
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_SOURCE_DIR}/python/lockstep)
# nanobind's headers are not ours to warn about; options of a source file come after those of its target.
set_source_files_properties(python/lockstep/native.cc PROPERTIES COMPILE_OPTIONS
  "-Wno-shadow;-Wno-conversion;-Wno-pedantic")
target_link_libraries(lockstep_native PRIVATE lockstep_worker_real)
target_link_options(lockstep_native PRIVATE -static-libstdc++ -static-libgcc)
