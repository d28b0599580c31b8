package interop;

import java.nio.ByteBuffer;

/** A record is its number: eight bytes, big-endian. Numbers begin with 0 and leave none out. */
final class Ids {
    static final int BYTES = Long.BYTES;

    private Ids() {}

    static ByteBuffer data(long id) {
        return ByteBuffer.allocate(BYTES).putLong(0, id);
    }

    static long of(ByteBuffer data) {
        if (data.remaining() != BYTES) {
            throw new IllegalStateException("a record of " + data.remaining() + " bytes, not " + BYTES);
        }
        return data.getLong(data.position());
    }

    /** Few keys, many records of each. */
    static String partitionKey(long id) {
        return "key-" + id % 64;
    }
}
