from .agent_alternation_hook import AgentAlternationHook
from .class_mean_hook import ClassMeanHook
from .data_check_hook import DataCheckHook
from .flow_visualization_hook import FlowVisualizationHook
from .knowledge_flow_hook import KnowledgeFlowHook
from .learner_hook import LearnerHook
from .load_report_hook import LoadReportHook
from .loss_check_hook import LossCheckHook
from .meta_weighting_hook import MetaWeightingHook
from .preflight_hook import PreflightHook
from .random_state_hook import RandomStateHook
from .stored_outputs_hook import StoredOutputsHook
from .student_export_hook import StudentExportHook
from .teacher_check_hook import TeacherCheckHook
from .weight_visualization_hook import WeightVisualizationHook

__all__ = [
    'AgentAlternationHook', 'ClassMeanHook', 'DataCheckHook',
    'FlowVisualizationHook', 'KnowledgeFlowHook', 'LearnerHook',
    'LoadReportHook', 'LossCheckHook', 'MetaWeightingHook',
    'PreflightHook', 'RandomStateHook', 'StoredOutputsHook',
    'StudentExportHook', 'TeacherCheckHook', 'WeightVisualizationHook'
]
