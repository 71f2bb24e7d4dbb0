enable_testing()
find_package(GTest REQUIRED)
find_package(rapidcheck REQUIRED)
include(GoogleTest)

get_property(unit_sources GLOBAL PROPERTY LOCKSTEP_TEST_SOURCES)
file(GLOB design_sources CONFIGURE_DEPENDS tests/design/*_test.cc)
add_executable(lockstep_tests ${unit_sources} ${design_sources})
target_link_libraries(lockstep_tests PRIVATE lockstep_server lockstep_worker_real GTest::gtest GTest::gmock
  GTest::gtest_main rapidcheck)
target_compile_definitions(lockstep_tests PRIVATE LOCKSTEP_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
  LOCKSTEP_FAKE_NVML="$<TARGET_FILE:fake_nvml>")
add_library(fake_nvml MODULE tests/fake/nvml.cc)
add_dependencies(lockstep_tests fake_nvml)
gtest_discover_tests(lockstep_tests DISCOVERY_MODE PRE_TEST)

add_test(NAME rooms COMMAND ${PROJECT_SOURCE_DIR}/tools/check_rooms.py)
add_test(NAME rooms_self_test COMMAND ${PROJECT_SOURCE_DIR}/tools/check_rooms.py --self-test)
add_test(NAME tidy COMMAND ${PROJECT_SOURCE_DIR}/tools/tidy_test.py)
add_test(NAME tidy_self_test COMMAND ${PROJECT_SOURCE_DIR}/tools/tidy_test.py --self-test)
add_test(NAME generated_types COMMAND ${PROJECT_SOURCE_DIR}/tools/generate_types.py --check --binary
  $<TARGET_FILE:lockstep>)
add_test(NAME generated_types_self_test COMMAND ${PROJECT_SOURCE_DIR}/tools/generate_types.py --self-test)
add_test(NAME ownership COMMAND ${PROJECT_SOURCE_DIR}/tools/check_ownership.py --binary $<TARGET_FILE:lockstep>)
add_test(NAME ownership_self_test COMMAND ${PROJECT_SOURCE_DIR}/tools/check_ownership.py --self-test)
add_test(NAME mutants_apply COMMAND ${PROJECT_SOURCE_DIR}/tools/mutants/run.py --check)
add_test(NAME mutants_self_test COMMAND ${PROJECT_SOURCE_DIR}/tools/mutants/run.py --self-test)
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  # Sanitizers add symbols of their own, so purity is proven on the release objects.
  add_test(NAME pure COMMAND ${PROJECT_SOURCE_DIR}/tools/check_pure.py ${CMAKE_BINARY_DIR})
  add_test(NAME pure_self_test COMMAND ${PROJECT_SOURCE_DIR}/tools/check_pure.py --self-test)
endif()

# The simulator runs seeds for two minutes of real time in every test run; a failing one prints how to run it again.
# Two hundred at least, so that a fault that never struck is seen, also on a machine that is busy.
add_test(NAME simulator COMMAND lockstep sim --seeds 1..100000 --wall 120 --seeds-min 200)
# A small world, ended once at every fourth of its points; tools/soak.sh takes all of them, and the second ends.
add_test(NAME exhaustive COMMAND lockstep sim --exhaustive --depth 1 --every 4)
# Both need a core and none of the other tests: tools/test.sh runs what has this label beside the others.
set_tests_properties(simulator exhaustive PROPERTIES TIMEOUT 900 LABELS beside)
# One seed cannot meet every fault: the simulator must say so.
add_test(NAME simulator_misses_faults COMMAND lockstep sim --seed 1 --require-faults)
set_tests_properties(simulator_misses_faults PROPERTIES WILL_FAIL TRUE)
