#include "cli/message.h"

#include <cstdio>
#include <fstream>
#include <iostream>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "base/text.h"
#include "cli/machines.h"
#include "events/message_types.h"
#include "propagation/ordering.h"
#include "propagation/urgency_table.h"

namespace lockstep::cli {

namespace {

struct Problem {
  std::string type;  // a name of base/error_table.h
  std::string title;
  std::string pointer;
  std::string detail;
};
BOOST_DESCRIBE_STRUCT(Problem, (), (type, title, pointer, detail))

CheckOutput refused(const Error& error) {
  const ErrorFacts facts = error_facts(error.code);
  const Problem problem{std::string(facts.name), std::string(facts.sentence), error.pointer, error.message};
  return {{}, json::to_text(problem) + "\n", ExitCode::usage};
}

/// Enough to see that a document is too long; what an endless file has beyond is not read.
constexpr std::size_t read_max = 64u << 20;

std::string all_of(std::istream& in) {
  std::string text;
  char piece[1 << 14];
  while (text.size() < read_max && in.read(piece, sizeof piece)) text.append(piece, sizeof piece);
  if (text.size() < read_max) text.append(piece, static_cast<std::size_t>(in.gcount()));
  return text;
}

}  // namespace

CheckOutput check_message(const std::string& text, const std::string& type) {
  const auto found = type.empty() ? recognise_message(text) : message_type_named(type);
  if (!found) return refused(found.error());
  const auto checked = (*found)->check(text);
  if (!checked) return refused(checked.error());
  CheckOutput output{checked->canonical + "\n", {}, ExitCode::done};
  if (const int dropped = checked->notes.unknown_keys; dropped > 0) {
    output.err =
        cat("lockstep: unknown keys dropped: ", dropped, ", the first at ", checked->notes.first_unknown, "\n");
  }
  return output;
}

CheckOutput message_schema(const std::string& type) {
  json::Schema schema;
  if (!type.empty()) {
    const auto found = message_type_named(type);
    if (!found) return refused(found.error());
    (*found)->describe(schema, (*found)->section);
    return {schema.text(type), {}, ExitCode::done};
  }
  for (const MessageType& each : all_documents()) each.describe(schema, each.section);
  return {schema.text("Messages of lockstep"), {}, ExitCode::done};
}

struct Message::State {
  CLI::App* check = nullptr;
  CLI::App* schema = nullptr;
  CLI::App* urgency = nullptr;
  CLI::App* machines = nullptr;
  std::string type;
  std::string file;
};

Message::Message(CLI::App& app) : state_(std::make_unique<State>()) {
  CLI::App* message = app.add_subcommand("message", "check the specification's documents, or describe them");
  message->require_subcommand(1);
  state_->check = message->add_subcommand("check", "print a document's canonical form, or what is wrong with it");
  state_->check->add_option("FILE", state_->file, "the document; - reads standard input")->required();
  state_->check->add_option("--type", state_->type, "what it must be (default: what it says itself)");
  state_->schema = message->add_subcommand("schema", "print JSON Schema 2020-12 of all types");
  state_->schema->add_option("--type", state_->type, "of this type only");
  state_->machines = message->add_subcommand("machines", "print the state machines as diagrams");
  state_->urgency = message->add_subcommand("urgency", "print the table of lanes and receiving domains (§2.7)");
}
Message::~Message() = default;

std::optional<int> Message::run() {
  const State& s = *state_;
  CheckOutput output;
  if (s.schema->parsed()) {
    output = message_schema(s.type);
  } else if (s.urgency->parsed()) {
    output = {cat(urgency_document(), "\n", ordering_document()), {}, ExitCode::done};
  } else if (s.machines->parsed()) {
    output = {machines_document(), {}, ExitCode::done};
  } else if (!s.check->parsed()) {
    return std::nullopt;
  } else if (s.file == "-") {
    output = check_message(all_of(std::cin), s.type);
  } else {
    std::ifstream file(s.file, std::ios::binary);
    output =
        file ? check_message(all_of(file), s.type) : refused(fail(ErrorCode::not_found, cat("cannot read ", s.file)));
  }
  std::fwrite(output.out.data(), 1, output.out.size(), stdout);
  std::fwrite(output.err.data(), 1, output.err.size(), stderr);
  return static_cast<int>(output.code);
}

}  // namespace lockstep::cli
