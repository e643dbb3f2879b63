// A JupyterLab extension without a bundler. JupyterLab writes "Error displaying widget: model not found" where a live widget was
// saved and its kernel is gone, even when the same output holds a still picture as HTML. This shows the picture instead.
(() => {
  const VIEW = "application/vnd.jupyter.widget-view+json", NAME = "interp-workbench", LOADING = /^Loading widget/, GONE = /^Error displaying widget/;
  let scope;
  const shared = async name => (await Object.values(scope[name])[0].get())();

  function patient(renderer, makeHtml) {                   // a widget's place that falls back on the HTML beside it
    const render = renderer.renderModel.bind(renderer);
    const stand_in = async (model, when) => {
      if (renderer.isDisposed || !model.data["text/html"] || !when.test(renderer.node.textContent)) return;
      renderer.node.textContent = "";
      const still = makeHtml();
      renderer.addWidget(still);
      await still.renderModel(model);
    };
    renderer.renderModel = async model => {
      setTimeout(() => stand_in(model, LOADING), 3000);    // without a kernel the wait for it has no end
      await render(model);
      await stand_in(model, GONE);
    };
    return renderer;
  }
  function teach(rendermime) {
    const make = rendermime.createRenderer.bind(rendermime);
    rendermime.createRenderer = mime => mime === VIEW ? patient(make(mime), () => make("text/html")) : make(mime);
  }
  async function extension() {
    const { INotebookTracker } = await shared("@jupyterlab/notebook");
    const plugin = {
      id: `${NAME}:still-pictures`, autoStart: true, requires: [INotebookTracker],
      activate: (app, notebooks) => { notebooks.forEach(panel => teach(panel.content.rendermime)); notebooks.widgetAdded.connect((_, panel) => teach(panel.content.rendermime)); },
    };
    return () => ({ __esModule: true, default: plugin });
  }
  (window._JUPYTERLAB ??= {})[NAME] = { init(s) { scope = s; }, get: extension };
})();
