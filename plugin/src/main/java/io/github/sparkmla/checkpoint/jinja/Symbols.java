package io.github.sparkmla.checkpoint.jinja;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The names that one frame of a template mentions, and the variable each stands for. jinja2 decides this before it
 * renders: a name belongs to the outermost frame that mentions it, and a frame decides on entry where its variables
 * start from. That is why a {@code set} after a loop can hide a context variable inside the loop.
 */
final class Symbols {
    /** Where a variable starts from when its frame is entered. */
    enum Source {
        /** Assigned by whoever enters the frame. */
        PARAMETER,
        /** The context. */
        CONTEXT,
        /** A variable of an outer frame. */
        OUTER,
        /** Nowhere: it is undefined until set. */
        NOWHERE
    }

    /** {@code from} is a context name or an outer variable, else null. */
    record Load(String variable, Source source, String from) {}

    private final Symbols parent;
    private final int level;
    private final Map<String, String> variables;
    private final Map<String, Load> loads;
    private final Set<String> stores;

    /** Symbols of a frame inside {@code parent}, which is null for the template itself. */
    Symbols(Symbols parent) {
        this(parent, parent == null ? 0 : parent.level + 1, new HashMap<>(), new LinkedHashMap<>(), new HashSet<>());
    }

    private Symbols(
            Symbols parent, int level, Map<String, String> variables, Map<String, Load> loads, Set<String> stores) {
        this.parent = parent;
        this.level = level;
        this.variables = variables;
        this.loads = loads;
        this.stores = stores;
    }

    /** A copy for one branch of an if. */
    Symbols branch() {
        return new Symbols(parent, level, new HashMap<>(variables), new LinkedHashMap<>(loads), new HashSet<>(stores));
    }

    /** The variable that a name stands for, or null. */
    String find(String name) {
        for (Symbols frame = this; frame != null; frame = frame.parent) {
            String variable = frame.variables.get(name);
            if (variable != null) {
                return variable;
            }
        }
        return null;
    }

    boolean isParameter(String variable) {
        for (Symbols frame = this; frame != null; frame = frame.parent) {
            Load load = frame.loads.get(variable);
            if (load != null) {
                return load.source() == Source.PARAMETER;
            }
        }
        return false;
    }

    List<Load> loads() {
        return new ArrayList<>(loads.values());
    }

    void load(String name) {
        if (find(name) == null) {
            define(name, Source.CONTEXT, name);
        }
    }

    void store(String name) {
        stores.add(name);
        if (!variables.containsKey(name)) {
            String outer = parent == null ? null : parent.find(name);
            define(name, outer == null ? Source.NOWHERE : Source.OUTER, outer);
        }
    }

    String parameter(String name) {
        stores.add(name);
        return define(name, Source.PARAMETER, null);
    }

    /** Takes in what the branches of an if mention; what only they set may keep its value from before the frame. */
    void merge(Collection<Symbols> branches) {
        Set<String> onlyInBranches = new HashSet<>();
        branches.forEach(branch -> onlyInBranches.addAll(branch.stores));
        onlyInBranches.removeAll(stores);
        for (Symbols branch : branches) {
            variables.putAll(branch.variables);
            loads.putAll(branch.loads);
            stores.addAll(branch.stores);
        }
        for (String name : onlyInBranches) {
            String outer = parent == null ? null : parent.find(name);
            String variable = find(name);
            loads.put(
                    variable,
                    outer == null ? new Load(variable, Source.CONTEXT, name) : new Load(variable, Source.OUTER, outer));
        }
    }

    private String define(String name, Source source, String from) {
        String variable = level + ":" + name;
        variables.put(name, variable);
        loads.put(variable, new Load(variable, source, from));
        return variable;
    }
}
