// What the page needs of Apache ECharts, and nothing else; README.md says how it becomes charts.min.js.
import * as core from "echarts/core";
import { CustomChart, HeatmapChart, LineChart, ScatterChart } from "echarts/charts";
import { GridComponent, TooltipComponent, VisualMapComponent } from "echarts/components";
import { LabelLayout } from "echarts/features";
import { CanvasRenderer } from "echarts/renderers";

core.use([CustomChart, HeatmapChart, LineChart, ScatterChart]);
core.use([GridComponent, TooltipComponent, VisualMapComponent, LabelLayout, CanvasRenderer]);

export const { init, getInstanceByDom } = core;
