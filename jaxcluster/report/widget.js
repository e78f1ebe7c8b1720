/* A report in a frame of its own, and its selection in the model of the widget. */
export default {
  render({ model, el }) {
    const frame = document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-scripts allow-downloads");
    frame.title = model.get("title");
    frame.style.cssText = "width: 100%; height: 820px; border: 0";
    frame.srcdoc = model.get("html");
    const show = () => frame.contentWindow.postMessage({ jaxcluster: model.get("selection") }, "*");
    const hear = (event) => {
      if (event.source !== frame.contentWindow || !event.data || !Array.isArray(event.data.jaxcluster)) return;
      model.set("selection", event.data.jaxcluster);
      model.save_changes();
    };
    frame.addEventListener("load", () => {
      if (model.get("selection").length) show();
    });
    window.addEventListener("message", hear);
    model.on("change:selection", show);
    el.append(frame);
    return () => {
      window.removeEventListener("message", hear);
      model.off("change:selection", show);
    };
  },
};
