#pragma once

// For the .cc files of this room: one HTTP connection over which a worker fetches and puts blobs.

#include <memory>

#include "env/real/blob_table.h"
#include "env/real/tls_connection.h"

namespace lockstep::real {

/// Serves GET and PUT of /blobs/<name> until the other side ends, is idle for too long or breaks the protocol.
/// `blobs` outlives every connection.
void serve_blobs(std::shared_ptr<TlsConnection> connection, std::shared_ptr<BlobTable> blobs);

}  // namespace lockstep::real
