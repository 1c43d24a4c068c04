package io.github.sparkmla.checkpoint.jinja;

import java.time.Clock;
import java.time.ZoneId;
import java.util.List;
import java.util.Map;

/**
 * A chat template in the Jinja language. Renders exactly as Python's jinja2 3.1 does in the set-up of Hugging Face
 * transformers (immutable sandbox, trim_blocks, lstrip_blocks, loop controls, transformers' own tojson, raise_exception,
 * strftime_now and generation tag), or throws: it never renders anything else. Values are data: what they hold is never
 * read as a template. Immutable and safe for use by many threads.
 */
public final class Template {
    private final List<Node.Stmt> statements;
    private final Node.Scope scope;

    private Template(List<Node.Stmt> statements, Node.Scope scope) {
        this.statements = statements;
        this.scope = scope;
    }

    /** Throws {@link JinjaException} for a template that jinja2 would not compile or that uses what we do not render. */
    public static Template parse(String source) {
        try {
            List<Node.Stmt> statements = Parser.parse(source);
            return new Template(statements, Binder.bind(statements));
        } catch (StackOverflowError e) {
            throw tooDeep();
        }
    }

    /**
     * Renders with the system's clock.
     *
     * @param context variables by name: null, Boolean, Integer, Long, finite Double, String, List, and Map with String
     *     keys, whose order counts. As in transformers, {@code tools} and {@code documents} should be there, null if none
     */
    public String render(Map<String, Object> context) {
        return render(context, Clock.system(ZoneId.systemDefault()));
    }

    /** Renders with {@code strftime_now} at a given clock. */
    public String render(Map<String, Object> context, Clock clock) {
        try {
            Limits limits = new Limits();
            return new Interpreter(ContextValues.convert(context, limits), limits, clock).run(statements, scope);
        } catch (StackOverflowError e) {
            throw tooDeep();
        }
    }

    private static JinjaException tooDeep() {
        return JinjaException.error("the template or a value nests or recurses too deeply");
    }
}
