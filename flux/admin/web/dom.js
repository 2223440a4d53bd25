// Small helpers over the DOM: elements, lists that are updated in place, copying.

export const $ = (id) => document.getElementById(id);

// h("a.link", {href: "#"}, "text", child)
export function h(spec, properties = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

// Whether it is the one of its group that is shown.
export function mark(element, current) {
  if (current) element.setAttribute("aria-current", "true");
  else element.removeAttribute("aria-current");
}

// Makes the children of `parent` those of `items`, in order. An item that stays keeps its element, and with it
// focus, hover and selection. make(item) gives an element; update(element, item) brings it up to date.
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, place) => {
    const name = String(key(item));
    let element = old.get(name);
    old.delete(name);
    if (!element) {
      element = make(item);
      element.dataset.key = name;
    }
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
    update(element, item);
  });
  for (const element of old.values()) element.remove();
}

async function copy(value) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(value);
    return;
  }
  const area = h("textarea.hidden", { readonly: "" });
  area.value = value;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function copyButton(value, label) {
  return h(
    "button.button.small",
    {
      type: "button",
      "aria-label": `Copy ${label}`,
      onclick: async (event) => {
        const button = event.currentTarget;
        await copy(value());
        button.textContent = "Copied";
        setTimeout(() => (button.textContent = "Copy"), 1200);
      },
    },
    "Copy",
  );
}
