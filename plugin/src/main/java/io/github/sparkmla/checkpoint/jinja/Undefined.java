package io.github.sparkmla.checkpoint.jinja;

/**
 * The value of what is not there: prints as nothing, is false, has no elements; anything else raises.
 *
 * @param message what the error says
 */
record Undefined(String message) {
    static Undefined variable(String name) {
        return new Undefined("'" + name + "' is undefined");
    }

    static Undefined attribute(Object owner, Object key) {
        String type = owner == null ? "None" : PyTypes.name(owner) + " object";
        return new Undefined(
                key instanceof String
                        ? "'" + type + "' has no attribute '" + key + "'"
                        : type + " has no element " + key);
    }

    /** What the sandbox gives for attributes that would change a value. */
    static Undefined unsafe(Object owner, String name) {
        return new Undefined("access to attribute '" + name + "' of '" + PyTypes.name(owner) + "' object is unsafe.");
    }

    JinjaException error() {
        return JinjaException.error(message);
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Undefined;
    }

    @Override
    public int hashCode() {
        return 0;
    }
}
